"""The entry point that all callouts share.

A service's `__main__.py` is `sys.exit(main("body-router", build, defaults={"grpc_port": 9004, "health_port": 9005}))`.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence

from services.extproc import flags as flags_
from services.extproc import logs
from services.extproc.config import ConfigError
from services.extproc.process import Process, ServeError
from services.extproc.reload import Reloader
from services.extproc.service import Service
from services.extproc.tls import TlsError
from services.extproc.workers import run_workers

__all__ = ["Service", "main"]

logger = logging.getLogger("penstock.extproc")

WORKER_GRACE_S = 10.0
"""How much longer than `--drain-timeout` a worker may take to end before it is killed, seconds."""


def main(
    name: str,
    build: Callable[[argparse.Namespace], Service],
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    defaults: Mapping[str, object] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the flags of docs/architecture.md, build the service, serve until told to stop; return the exit code.

    Args:
        name: what the process is, for logs and help, e.g. `body-router`.
        build: makes the service from the parsed flags; raises `ConfigError` for what cannot be used. Called before
            worker processes are forked, as is the first `load` of its files: they must not start threads, event loops
            or gRPC.
        add_arguments: adds the service's own flags.
        defaults: defaults of flags by attribute name, e.g. `{"grpc_port": 9004, "health_port": 9005}`.
        argv: arguments without the program's name; None reads `sys.argv`.

    Returns:
        0 after a graceful stop, 1 when something broke, 2 for wrong flags or config. Wrong flags and `--help` leave by
        SystemExit, as argparse does.
    """
    flags = flags_.parse(name, add_arguments, defaults or {}, argv)
    logs.configure(name, flags.log_level)
    try:
        service = build(flags)
        reloader = Reloader(service)
        reloader.first()
    except ConfigError as error:
        print(f"penstock {name}: {error}", file=sys.stderr)
        return 2
    if flags.processes == 1:
        return _run(name, service, reloader, flags)

    def work(index: int, parent: int) -> int:
        return _run(name, service, reloader, flags_.for_worker(flags, index), parent)

    return run_workers(flags.processes, work, flags.drain_timeout + WORKER_GRACE_S)


def _run(name: str, service: Service, reloader: Reloader, flags: argparse.Namespace, parent: int | None = None) -> int:
    """Serve in this process."""

    async def serve() -> None:
        await Process(name, service, reloader, flags, parent).run()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve())
    except (ConfigError, ServeError, TlsError) as error:
        print(f"penstock {name}: {error}", file=sys.stderr)
        return 2
    except Exception:
        logger.exception("serving failed")
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows has none
        return None
    return uvloop.new_event_loop
