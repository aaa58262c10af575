"""A real server for all tests of a module, empty for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from services.apimgmt.store.valkey import ValkeyStore
from tests.support.missing import missing
from tests.support.valkey import NoServer, Server, program, server


@pytest.fixture(scope="module", params=["alone", "cluster"])
def valkey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, alone and as a cluster of one node."""
    try:
        program()
    except NoServer as error:
        missing(error)
    with server(tmp_path_factory.mktemp("valkey"), cluster=request.param == "cluster") as running:
        yield running


@pytest.fixture
async def store(valkey: Server) -> AsyncIterator[ValkeyStore]:
    """An open store without data."""
    valkey.clear()
    opened = valkey.store()
    await opened.open()
    yield opened
    await opened.close()
