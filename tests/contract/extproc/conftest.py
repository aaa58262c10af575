"""A callout served on loopback by the real server, in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio
import pytest

from services.extproc.api import Filter
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.server import Callout, server_options
from tests.support.upstream import Upstream

Serve = Callable[..., Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(filter, ..., limits=Limits())` returns the port."""
    running: list[tuple[grpc.aio.Server, asyncio.Task[None]]] = []

    async def start(*filters: Filter, limits: Limits | None = None) -> int:
        callout = Callout(Chain(filters), limits or Limits())
        server = grpc.aio.server(options=server_options(limits or Limits()))
        callout.register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        running.append((server, asyncio.create_task(callout.watch())))
        return port

    yield start
    for server, watcher in running:
        watcher.cancel()
        await server.stop(0.2)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = await Upstream().start()
    yield server
    await server.stop()
