"""One serving process: its ports, its readiness and its graceful end."""

import argparse
import asyncio
import logging
import os
import signal

import grpc.aio

from services.extproc.admin import start_admin
from services.extproc.chain import Chain
from services.extproc.health import Health
from services.extproc.memory import keep_heap
from services.extproc.reload import Reloader
from services.extproc.server import Callout, server_options
from services.extproc.service import Service
from services.extproc.tls import Certificates

READY_POLL_S = 0.25
"""How often a service is asked whether it is ready, seconds."""

CLOSE_GRACE_S = 0.5
"""How long a health watch or a stuck stream may delay the end after draining, seconds."""

logger = logging.getLogger("penstock.extproc")


class ServeError(Exception):
    """The process cannot serve; the text says why and what to do."""


class Process:
    """Serves a `Service` on its ports until SIGTERM or SIGINT; a second signal ends the process at once."""

    def __init__(
        self, name: str, service: Service, reloader: Reloader, flags: argparse.Namespace, parent: int | None = None
    ) -> None:
        self._name, self._service, self._reloader = name, service, reloader
        self._flags, self._parent = flags, parent
        self._health = Health()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve. Raises ServeError if a port cannot be bound, TlsError for an unusable certificate."""
        flags, service = self._flags, self._service
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        certificates = Certificates.of(flags.tls_mode, self._name, flags.address, flags.tls_dir)
        await service.start()
        try:
            await self._serve(certificates)
        finally:
            await service.stop()

    async def _serve(self, certificates: Certificates | None) -> None:
        flags, service = self._flags, self._service
        callout = Callout(Chain(service.filters), service.limits)
        secure = certificates.credentials() if certificates else None
        server = grpc.aio.server(options=server_options(service.limits))
        callout.register(server)
        self._health.register(server)
        probe = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._health.register(probe)
        grpc_port = _bind(server, flags.address, flags.grpc_port, secure, "--grpc-port")
        health_port = _bind(probe, flags.address, flags.health_port, None, "--health-port")
        try:
            admin = await start_admin(flags.address, flags.metrics_port, lambda: self._health.ready)
        except OSError as error:
            raise ServeError(f"--metrics-port {flags.metrics_port}: cannot listen: {error.strerror}") from None
        await self._health.set(service.ready())
        await server.start()
        await probe.start()

        def renew() -> None:
            callout.use(Chain(service.filters), service.limits)

        work = [callout.watch(), self._poll(), self._reloader.run(renew)]
        if certificates:
            work.append(certificates.watch())
        watchers = [asyncio.create_task(each) for each in work]
        ports = {"grpc_port": grpc_port, "health_port": health_port}
        ports["metrics_port"] = admin.sockets[0].getsockname()[1]
        how = {"tls": flags.tls_mode, "config_version": self._reloader.version}
        logger.info("serving", extra={"address": flags.address, **ports, "pid": os.getpid(), **how})
        keep_heap()
        try:
            await self._stopping.wait()
            await self._drain(callout, server)
        finally:
            for task in watchers:
                task.cancel()
            admin.close()
            await server.stop(0)
            await probe.stop(0)

    async def _drain(self, callout: Callout, server: grpc.aio.Server) -> None:
        """Report not ready, take no new streams, let the open ones finish for `--drain-timeout` seconds."""
        await self._health.set(False)
        timeout = self._flags.drain_timeout
        logger.info("draining", extra={"streams": callout.in_flight, "timeout_s": timeout})
        closing = asyncio.create_task(server.stop(timeout + CLOSE_GRACE_S))
        try:
            async with asyncio.timeout(timeout):
                await callout.wait_idle()
        except TimeoutError:
            logger.warning("drain timeout: open streams are cut", extra={"streams": callout.in_flight})
        await server.stop(0)
        await closing
        try:  # handlers of cut streams still have to tell their filters
            async with asyncio.timeout(CLOSE_GRACE_S):
                await callout.wait_idle()
        except TimeoutError:
            pass
        logger.info("stopped")

    async def _poll(self) -> None:
        """Publish readiness, and end with the parent process if that went away without a word."""
        while not self._stopping.is_set():
            await self._health.set(self._service.ready())
            if self._parent is not None and os.getppid() != self._parent:
                logger.error("the parent process is gone")
                self._stopping.set()
            await asyncio.sleep(READY_POLL_S)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()


def _bind(server: grpc.aio.Server, address: str, port: int, secure: grpc.ServerCredentials | None, flag: str) -> int:
    host = f"[{address}]" if ":" in address else address
    try:
        if secure is None:
            return server.add_insecure_port(f"{host}:{port}")
        return server.add_secure_port(f"{host}:{port}", secure)
    except RuntimeError:
        raise ServeError(f"{flag} {port}: cannot listen on {host}: in use, or not an address of this host") from None
