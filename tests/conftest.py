"""Which tests are slow: real servers, browsers and crashes, whole folders of them. `make test-slow` runs these."""

from pathlib import Path

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        if place.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
