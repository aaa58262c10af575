"""Serving the admin API on the event loop of the callout, without taking its signals."""

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from typing import IO

import uvicorn
from starlette.types import ASGIApp

from services.extproc.files import POLL_S
from services.extproc.tls import Certificates

GRACE_S = 5
"""How long open requests may take when the process ends, seconds."""


class _Server(uvicorn.Server):
    """Leaves signals to the process, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminServer:
    """A running server."""

    def __init__(self, server: _Server, port: int, tasks: list[asyncio.Task[None]]) -> None:
        self._server, self._tasks = server, tasks
        self.port = port
        """The port that it listens on, also where 0 was asked for."""

    async def close(self) -> None:
        """Finish open requests, for a few seconds, and stop."""
        self._server.should_exit = True
        serving, *rest = self._tasks
        for task in rest:
            task.cancel()
        await asyncio.gather(serving, *rest, return_exceptions=True)


async def start_admin_server(app: ASGIApp, address: str, port: int, certificates: Certificates | None) -> AdminServer:
    """Serve `app` on `address` and `port` (0: a free one), over TLS if there are certificates. Raises OSError."""
    listener = _listen(address, port)
    context = _tls(certificates) if certificates else None
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]), name="admin-server")
    listens = asyncio.create_task(server.listens.wait())
    await asyncio.wait([listens, serving], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        listens.cancel()
        listener.close()
        await serving
        raise OSError("the admin server did not start")
    tasks = [serving]
    if certificates and context:
        tasks.append(asyncio.create_task(_follow(certificates, context), name="admin-certificates"))
    return AdminServer(server, listener.getsockname()[1], tasks)


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()  # two that only bound the port find out too late that they are two
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _tls(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificates.pair)
    return context


def _load(context: ssl.SSLContext, pair: tuple[bytes, bytes]) -> None:
    """Put key and certificate into `context`. OpenSSL's binding reads files only: one in memory, or soon gone."""
    with _nameless() if hasattr(os, "memfd_create") else tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join(pair))
        file.flush()
        context.load_cert_chain(file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.name}")


def _nameless() -> IO[bytes]:
    return open(os.memfd_create("penstock-admin-certificate"), "wb", buffering=0)


async def _follow(certificates: Certificates, context: ssl.SSLContext) -> None:
    """Give new handshakes the certificate in use."""
    pair = certificates.pair
    while True:
        await asyncio.sleep(POLL_S)
        if certificates.pair is not pair:
            pair = certificates.pair
            _load(context, pair)
