"""Readiness checks of local processes."""

import asyncio
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
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a plain HTTP GET to a local port."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        request = f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\nUser-Agent: penstock-local\r\n\r\n"
        writer.write(request.encode())
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    parts = head.split(None, 2)
    return (int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0), body


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
