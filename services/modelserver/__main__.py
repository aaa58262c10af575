"""`python -m services.modelserver`: run one simulated replica."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator

import orjson
import uvicorn
import uvloop

from services.modelserver.app import App
from services.modelserver.arguments import parse
from services.modelserver.http import Connection
from services.modelserver.settings import Settings

log = logging.getLogger("penstock.modelserver")


class _JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


class _Server(uvicorn.Server):
    """Stops in good order on SIGTERM and SIGINT and lets the process end with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            log.info("serving on http://%s:%d", *self.servers[0].sockets[0].getsockname()[:2])

    def _stop(self, number: signal.Signals) -> None:
        log.info("%s: no new connections, open requests are finished", number.name)
        self.should_exit = True


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.ERROR)


async def serve(settings: Settings) -> int:
    """Serve until a signal; return the exit status."""
    if settings.startup_s:
        await asyncio.sleep(settings.startup_s)
    config = uvicorn.Config(
        App(settings),
        host=settings.host,
        port=settings.port,
        http=Connection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )
    server = _Server(config)
    try:
        await server.serve()
    except SystemExit:  # uvicorn's answer to a port that is taken
        log.error("cannot listen on %s port %d: is it taken? Choose another --port", settings.host, settings.port)
        return 1
    return 0


def main() -> int:
    """Read the arguments and serve."""
    settings = parse(sys.argv[1:])
    _log_to_stderr(settings.log_level)
    if settings.not_simulated:
        log.info("accepted without effect in the simulator: %s", " ".join(settings.not_simulated))
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
