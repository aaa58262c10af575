"""Compiles the modules that every request passes to machine code, with mypyc: `python -m services.compile FOLDER`.

FOLDER holds an installed copy of the package `services` (`pip install --target`), never the sources: an extension
module hides the source file beside it, also when that is edited later. The code is the same with and without; compiled
it costs a third less (docs/adr/20261121-compiled-callouts.md). Needs mypy and a C compiler.
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

EXTPROC = ("alarms", "api", "chain", "flow", "messages", "meters", "session")
APIMGMT = (
    *("account", "accounting", "body", "call", "charging", "ending", "identity", "metrics", "pipeline", "pricing"),
    *("directory", "keycache", "keys", "ratelimit", "reserving", "step", "windows"),
    *("store/api", "usage/sse"),
    *("ledger/record", "store/sqlite/counters", "store/sqlite/hot", "store/sqlite/requests"),
    "store/sqlite/reservations",
    *("usage/answer", "usage/estimator", "usage/prompt", "usage/request", "usage/response", "usage/stream"),
    "usage/tokens",
)
MODULES = (
    *(f"services/extproc/{name}.py" for name in EXTPROC),
    *(f"services/apimgmt/{name}.py" for name in APIMGMT),
)
"""Files, from the folder on."""

SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
"""Ending of extension modules."""


def compile_in(folder: Path) -> None:
    """Compile `MODULES` below `folder`, in place. Raises SystemExit with what is missing, or the compiler's errors."""
    missing = [name for name in MODULES if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"{folder}: expected an installed copy of the package `services`; it lacks {missing[0]}")
    with tempfile.TemporaryDirectory() as build:  # alone: what else is in the folder would be taken for ours
        shutil.copytree(folder / "services", Path(build, "services"))
        os.chdir(build)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
        _build()
        for made in Path(build).rglob(f"*{SUFFIX}"):
            if "build" not in made.relative_to(build).parts:
                shutil.copy(made, folder / made.relative_to(build))
        os.chdir(folder)


def _build() -> None:
    try:
        from mypyc.build import mypycify
        from setuptools import setup
    except ImportError as error:
        raise SystemExit(f"compiling needs mypy and setuptools ({error}); install them, e.g. by `make setup`") from None
    extensions: Any = mypycify(  # setuptools' stubs and distutils' know nothing of each other
        ["--ignore-missing-imports", "--follow-imports=silent", "--python-executable", sys.executable, *MODULES],
        opt_level="2",
    )
    setup(name="services", packages=[], ext_modules=extensions, script_args=["-q", "build_ext", "--inplace"])


def is_compiled() -> bool:
    """Tell whether this process runs compiled modules."""
    from services.extproc import session

    return (session.__file__ or "").endswith(SUFFIX)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m services.compile FOLDER")
    compile_in(Path(sys.argv[1]).resolve())
