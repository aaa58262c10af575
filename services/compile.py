"""Compiles the modules that every request passes to machine code, with mypyc: `python -m services.compile FOLDER`.

FOLDER holds an installed copy of the package `services` (`pip install --target`), never the sources: an extension
module hides the source file beside it, also when that is edited later. The code is the same with and without; compiled
it costs a third less (docs/adr/20261121-compiled-callouts.md). Needs mypy and a C compiler.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

EXTPROC = ("alarms", "chain", "flow", "messages", "session")
APIMGMT = (
    *("account", "accounting", "body", "call", "ending", "identity", "metrics", "pipeline", "pricing", "ratelimit"),
    *("reserving", "step", "windows"),
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


def compile_in(folder: Path) -> None:
    """Compile `MODULES` below `folder`, in place. Raises SystemExit with what is missing, or the compiler's errors."""
    missing = [name for name in MODULES if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"{folder}: expected an installed copy of the package `services`; it lacks {missing[0]}")
    try:
        from mypyc.build import mypycify
        from setuptools import setup
    except ImportError as error:
        raise SystemExit(
            f"compiling needs mypy and setuptools ({error}); install them, e.g. with `make setup`"
        ) from None
    os.chdir(folder)
    os.environ["MYPYPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("MYPYPATH", ""))))
    extensions: Any = mypycify(  # setuptools' stubs and distutils' know nothing of each other
        ["--ignore-missing-imports", "--follow-imports=silent", "--python-executable", sys.executable, *MODULES],
        opt_level="2",
    )
    setup(name="services", packages=[], ext_modules=extensions, script_args=["-q", "build_ext", "--inplace"])
    shutil.rmtree("build")


def is_compiled() -> bool:
    """Tell whether this process runs compiled modules."""
    from services.extproc import session

    return (session.__file__ or "").endswith(sysconfig.get_config_var("EXT_SUFFIX"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m services.compile FOLDER")
    compile_in(Path(sys.argv[1]).resolve())
