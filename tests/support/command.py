"""The command `penstock` inside of the process of a test: as `python -m cli.main`, without the second that takes.

    result = penstock("preview", "--env", "prod", cwd=project)
    assert result.returncode == 0, result.stderr

What only a process shows (its end, pipes, terminals, hash seeds, what is imported) needs a process.
"""

import contextlib
import gc
import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TextIO

from cli.main import main

ROOT = Path(__file__).parents[2]


def penstock(*arguments: str, cwd: Path = ROOT, stdout: TextIO | None = None) -> "subprocess.CompletedProcess[str]":
    """Run the command and return what it wrote, in UTF-8; with `stdout`, what it writes goes there instead."""
    written = _file()
    errors = _file()
    to = contextlib.redirect_stdout(stdout or written), contextlib.redirect_stderr(errors)
    with contextlib.chdir(cwd), own_program(), to[0], to[1]:
        try:
            status = main(arguments)
        except SystemExit as ended:  # of argparse
            status = int(ended.code or 0)
        finally:
            gc.enable()  # which `preview` turns off, since its process ends soon
    return subprocess.CompletedProcess(arguments, status, _text(written), _text(errors))


def _file() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(file: io.TextIOWrapper) -> str:
    file.seek(0)
    return file.read()


@contextlib.contextmanager
def own_program() -> Iterator[None]:
    """Let a project of a test's own have its `infra.program`, as it has in a process of its own."""
    path, before = list(sys.path), _forget_program()
    try:
        yield
    finally:
        _forget_program()
        sys.modules.update(before)
        sys.path[:] = path


def _forget_program() -> dict[str, ModuleType]:
    importlib.invalidate_caches()
    names = [name for name in sys.modules if name.partition(".")[0] == "infra"]
    return {name: sys.modules.pop(name) for name in names}
