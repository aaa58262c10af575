"""That `make test-compiled` tests compiled code."""

import enum
import importlib
import os
import sys
from pathlib import Path

import pytest

from services import compile as compiling

MODULES = [file.removesuffix(".py").replace("/", ".") for file in compiling.MODULES]


@pytest.mark.skipif("PENSTOCK_COMPILED" not in os.environ, reason="runs interpreted; `make test-compiled` compiles")
def test_all_of_it_is_compiled() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    assert [module.__name__ for module in modules if not str(module.__file__).endswith(compiling.SUFFIX)] == []


def of_c(cls: type) -> bool:
    """Whether a class is made in C: its fields are none that compiled code knows of."""
    return not str(getattr(sys.modules[cls.__module__], "__file__", "")).endswith(".py")


@pytest.mark.parametrize("name", MODULES)
def test_compiled_classes_derive_from_none_of_c(name: str) -> None:
    """Such a class would lay its own fields over those of its base: a crash, some day. Some mypyc provides for."""
    module = importlib.import_module(name)
    classes = [cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == name]
    provided = (BaseException, tuple, enum.Enum)
    bases = {base for cls in classes if not issubclass(cls, provided) for base in cls.__mro__} - {object}
    assert [base for base in bases if base.__module__ not in MODULES and of_c(base)] == []
    ours = [base for base in bases if base.__module__.startswith("services.") and base.__module__ not in MODULES]
    assert ours == [], "interpreted bases with a metaclass are refused from Python 3.12 on"


def test_only_installed_copies_are_compiled(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected an installed copy of the package `services`; it lacks services/"):
        compiling.compile_in(tmp_path)
