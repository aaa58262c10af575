"""The fixture that runs a real API server; a `conftest.py` that imports it has it.

Usage:
    from tests.support.engine.fixtures import api_server  # noqa: F401 - a fixture
"""

from collections.abc import Iterator

import pytest

from tests.support.engine.apiserver import ApiServer, running


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One API server for each worker, with all CRDs. Tests share it, so each uses namespaces of its own."""
    with running(tmp_path_factory.mktemp("api-server")) as server:
        yield server
