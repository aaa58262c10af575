"""Which tests are slow: real servers, browsers and crashes, whole folders of them. `make test-slow` runs these.

And which worker runs which tests: see `tests.support.scheduling`.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent
SLOW = (
    "contract/apimgmt/service",
    "contract/apimgmt/store",
    "dataplane/apimgmt",
    "dataplane/test_environments.py",
    "dataplane/test_local_stack.py",
    "dataplane/test_portal.py",
    "unit/apimgmt/admin",
    "unit/apimgmt/export",
    "unit/apimgmt/portal",
    "unit/apimgmt/valkey",
)
"""Folders and files below `tests`."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for garbage neither in what collection makes nor, later, in what it has made: thousands of tests stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        if place.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under `--dist loadgroup`, keep files and groups of files whole."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.support.scheduling import scheduler

    return scheduler(config, log)
