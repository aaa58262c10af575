"""A callout served on loopback by the real server, in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from services.extproc.api import Filter
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.server import Callout, server_options
from tests.support.envoy import Envoy, bootstrap, cluster, ext_proc, free_port, start_envoy
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


Behind = Callable[..., Awaitable[Envoy]]


@pytest.fixture
async def behind(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Behind]:
    """`await behind(port, ..., request="STREAMED")` starts an Envoy with one ext_proc filter for each callout port."""
    running: list[Envoy] = []

    async def start(*callouts: int, **filter_fields: Any) -> Envoy:
        port = free_port()
        names = [f"callout{number}" for number in range(len(callouts))]
        filters = [ext_proc(name, **filter_fields) for name in names]
        clusters = [cluster(name, at, http2=True) for name, at in zip(names, callouts, strict=True)]
        config = bootstrap(port, filters, [*clusters, cluster("upstream", upstream.port)])
        running.append(await start_envoy(config, port, tmp_path))
        return running[-1]

    yield start
    for envoy in running:
        envoy.stop()
