"""That `make test-compiled` tests compiled code."""

import importlib
import os
from pathlib import Path

import pytest

from services import compile as compiling


@pytest.mark.skipif("PENSTOCK_COMPILED" not in os.environ, reason="runs interpreted; `make test-compiled` compiles")
def test_all_of_it_is_compiled() -> None:
    modules = [importlib.import_module(file.removesuffix(".py").replace("/", ".")) for file in compiling.MODULES]
    assert [module.__name__ for module in modules if not str(module.__file__).endswith(compiling.SUFFIX)] == []


def test_only_installed_copies_are_compiled(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected an installed copy of the package `services`; it lacks services/"):
        compiling.compile_in(tmp_path)
