"""Stacks that these tests share: each is started only where a test asks for it, and ended with the last of them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.dataplane.apimgmt.declaration import ENVIRON, change, settings
from tests.dataplane.apimgmt.managed import Managed
from tests.support.missing import missing
from tests.support.stack import running_stack
from tests.support.token_issuer import Issuer, SigningKey, token_issuer
from tests.support.valkey import NoServer, program

KEY = SigningKey("first")


@pytest.fixture(scope="package")
def issuer() -> Iterator[Issuer]:
    """An issuer of JWTs with the key `KEY`, in a thread: stacks and tests of all kinds use it."""
    begun: list[Issuer] = []
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with token_issuer() as made:
            made.publish(KEY)
            begun.append(made)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield begun[0]
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    loop.close()


def running(store: str, issuer: Issuer) -> Iterator[Managed]:
    """Run a stack of `declaration.STORES`."""
    with (
        running_stack(settings(store, issuer.url), environ=ENVIRON, change=change) as stack,
        closing(Managed(stack)) as managed,
    ):
        yield managed


@pytest.fixture(scope="package")
def sqlite(issuer: Issuer) -> Iterator[Managed]:
    """One pod, on SQLite."""
    yield from running("sqlite", issuer)


@pytest.fixture(scope="package")
def valkey(issuer: Issuer) -> Iterator[Managed]:
    """Two pods, on a real server."""
    try:
        program()
    except NoServer as error:
        missing(error)
    yield from running("valkey", issuer)


@pytest.fixture(params=["sqlite", "valkey"])
def managed(request: pytest.FixtureRequest) -> Managed:
    """Either of them."""
    found: Managed = request.getfixturevalue(request.param)
    return found
