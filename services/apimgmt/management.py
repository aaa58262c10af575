"""The management side of a process: the admin API, and what is mounted in it."""

import argparse
import asyncio
import errno
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping

from services.apimgmt.admin.app import create_app
from services.apimgmt.admin.context import MIN_TOKEN, AdminContext
from services.apimgmt.admin.server import AdminServer, start_admin_server
from services.apimgmt.policies.api import Tools
from services.apimgmt.portal.app import router as portal
from services.apimgmt.settings import Settings
from services.extproc.config import ConfigError, Problem
from services.extproc.tls import Certificates

TOKEN_VARIABLE = "PENSTOCK_ADMIN_TOKEN"  # noqa: S105 - its name
"""Opens everything in the admin API; optional."""

logger = logging.getLogger("penstock.apimgmt")


class Management:
    """A running admin server. `start` makes it."""

    def __init__(
        self, context: AdminContext, server: AdminServer | None, watch: "asyncio.Task[None] | None" = None
    ) -> None:
        self._context, self._server, self._watch = context, server, watch

    @classmethod
    async def start(
        cls,
        flags: argparse.Namespace,
        settings: Settings,
        tools: Tools,
        pepper: bytes,
        seal: Callable[[str, str, str], str],
        token: str | None,
    ) -> "Management":
        """Serve. Raises ConfigError if the port cannot be had; of several workers one has it."""
        context = AdminContext(
            tools.store,
            settings,
            pepper,
            time.time,
            token,
            seal=seal,
            tools=tools,
            directory=tools.extras["directory"],
        )
        certificates = None  # nobody listens in on the loopback address, and port-forward has no use for a certificate
        if not ipaddress.ip_address(flags.admin_address).is_loopback:
            certificates = Certificates.of(flags.tls_mode, "api-management-admin", flags.admin_address, flags.tls_dir)
        app = create_app(context, [portal])
        try:
            server = await start_admin_server(app, flags.admin_address, flags.admin_port, certificates)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and flags.processes > 1:
                return cls(context, None)
            where = f"{flags.admin_address}:{flags.admin_port}"
            problem = Problem("--admin-port", where, f"cannot listen: {error.strerror or error}", "choose another port")
            raise ConfigError("flags", [problem]) from None
        watch = asyncio.create_task(certificates.watch()) if certificates else None
        logger.info("admin API", extra={"address": flags.admin_address, "port": server.port})
        return cls(context, server, watch)

    def use(self, settings: Settings) -> None:
        """Serve by new settings from now on."""
        self._context.settings = settings

    async def stop(self) -> None:
        """Finish open requests, and end."""
        if self._server is not None:
            await self._server.close()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)


def read_admin_token(environ: Mapping[str, str]) -> str | None:
    """Return the admin token, None if there is none. Raises ConfigError, which never shows its value."""
    token = environ.get(TOKEN_VARIABLE, "").strip()
    if token and len(token) < MIN_TOKEN:
        expected = f"expected at least {MIN_TOKEN} characters"
        fix = "make one with: openssl rand -hex 32"
        raise ConfigError("environment", [Problem(TOKEN_VARIABLE, f"{len(token)} characters", expected, fix)])
    return token or None
