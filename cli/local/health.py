"""Readiness checks of local processes."""

import asyncio
import http.client
import os
from collections.abc import Callable

from cli.local.model import LOOPBACK, Check

_POLL_S = 0.1
_TRY_S = 2.0


async def until_ready(check: Check, wait: float, gone: Callable[[], bool]) -> bool:
    """Poll `check` until it passes (True), `wait` seconds are over, or `gone()` says that it never will (False)."""
    deadline = asyncio.get_running_loop().time() + wait
    while asyncio.get_running_loop().time() < deadline and not gone():
        if await passes(check):
            return True
        await asyncio.sleep(_POLL_S)
    return False


async def passes(check: Check) -> bool:
    """Tell whether `check` passes now."""
    probe = {"http": _http, "grpc": _grpc, "tcp": _tcp}[check.kind]
    try:
        return await asyncio.wait_for(probe(check), _TRY_S)
    except (OSError, TimeoutError):
        return False


async def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of an HTTP GET to a local port. Raises OSError."""
    return await asyncio.to_thread(_get, port, path)


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TRY_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{LOOPBACK}:{port}{path}: {error!r}") from error
    finally:
        connection.close()


async def _http(check: Check) -> bool:
    status, _ = await get(check.port, check.target)
    return 200 <= status < 300


async def _tcp(check: Check) -> bool:
    _, writer = await asyncio.open_connection(LOOPBACK, check.port)
    writer.close()
    return True


async def _grpc(check: Check) -> bool:
    """Ask the standard gRPC health service. The port is tried first: a gRPC channel retries only once a second."""
    await _tcp(check)
    # The supervisor starts processes; gRPC's fork handlers are for processes that go on to use gRPC.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{check.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=check.target), timeout=_TRY_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
