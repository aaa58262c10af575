"""The HTTP port of a callout process: `/metrics` for Prometheus and `/healthz` for people and probes."""

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

READ_TIMEOUT_S = 5.0
"""How long a client may take to send its request, seconds."""


async def start_admin(address: str, port: int, ready: Callable[[], bool]) -> asyncio.Server:
    """Serve GET `/metrics` and `/healthz` (200 `ok`, or 503 while not ready) on `address`. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_respond(head, ready))
            await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client broke off, or sent no HTTP
        finally:
            writer.close()

    return await asyncio.start_server(answer, address, port, limit=16 * 1024)


def _respond(head: bytes, ready: Callable[[], bool]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    kind, status, body = "text/plain; charset=utf-8", "404 Not Found", b"not found; try /metrics or /healthz\n"
    if method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", b"only GET\n"
    elif path == b"/healthz":
        status, body = ("200 OK", b"ok\n") if ready() else ("503 Service Unavailable", b"not ready\n")
    elif path == b"/metrics":
        kind, status, body = CONTENT_TYPE_LATEST, "200 OK", generate_latest()
    text = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return text.encode() + (body if method != b"HEAD" else b"")
