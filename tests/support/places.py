"""Where tests of both stores find an empty one. Imported by the folders whose tests use the fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.apimgmt.store.support import Place
from tests.support.missing import missing
from tests.support.valkey import NoServer, valkey_place


@pytest.fixture(params=["sqlite", "valkey"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty store: settings and environment with which any process opens it."""
    if request.param == "sqlite":
        yield Place({"kind": "sqlite", "path": str(tmp_path / "data" / "store.db")}, {})
        return
    try:
        with valkey_place(tmp_path) as (settings, environ):
            yield Place(settings, environ)
    except NoServer as error:
        missing(error)
