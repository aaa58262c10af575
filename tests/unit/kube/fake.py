"""A scripted API server: each request of a path takes the next step of that path's script."""

import asyncio
import contextlib
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from services.extproc.tls import self_signed
from services.kube.credentials import Credentials

AUTHORITY = self_signed("test", "127.0.0.1")[1].decode()


def item(name: str, version: int | str = 1, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **more}


def event(kind: str, name: str, version: int | str, **more: Any) -> bytes:
    return orjson.dumps({"type": kind, "object": item(name, version, **more)}) + b"\n"


def bookmark(version: int) -> bytes:
    return orjson.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}) + b"\n"


def error(code: int) -> bytes:
    return orjson.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "too old"}}) + b"\n"


@dataclass
class Listing:
    """A page of a list."""

    items: list[dict[str, Any]]
    version: int | str = 1
    onward: str = ""
    delay_s: float = 0.0


@dataclass
class Watching:
    """What a watch sends, then how it goes on: `hold`, `end` as agreed, or `cut` the connection.

    With `gate` it sends nothing before that is set.
    """

    pieces: list[bytes] = field(default_factory=list)
    then: str = "hold"
    gate: asyncio.Event | None = None


@dataclass
class Answer:
    """Any other answer."""

    status: int
    body: bytes = b'{"kind": "Status", "message": "scripted"}'


Step = Listing | Watching | Answer


@dataclass
class Asked:
    """A request as it came."""

    path: str
    query: Mapping[str, str]
    token: str

    @property
    def watch(self) -> bool:
        return self.query.get("watch") == "true"


class FakeApi:
    """Serves scripts. A path without steps left answers a list with nothing and holds watches open."""

    def __init__(self) -> None:
        self.scripts: dict[str, deque[Step]] = defaultdict(deque)
        self.asked: list[Asked] = []
        self.open: set[asyncio.StreamWriter] = set()
        self.watched: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Path -> set once a watch of it was asked for."""
        self.url = ""

    def script(self, path: str, *steps: Step) -> None:
        self.scripts[path].extend(steps)

    def credentials(self) -> Credentials:
        return Credentials(self.url, "secret", AUTHORITY)

    def of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                url = urlsplit(head.split(" ", 2)[1])
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                lower = {name.lower(): value for name, value in headers.items()}
                asked = Asked(unquote(url.path), dict(parse_qsl(url.query)), lower.get("authorization", ""))
                self.asked.append(asked)
                if asked.watch:
                    self.watched[asked.path].set()
                steps = self.scripts[asked.path]
                step = steps.popleft() if steps else Watching() if asked.watch else Listing([])
                if not isinstance(step, Answer):
                    assert isinstance(step, Watching) == asked.watch, (step, asked)
                await self._answer(writer, step)
                if isinstance(step, Watching) and step.then == "cut":
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, step: Step) -> None:
        if isinstance(step, Watching):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
            if step.gate is not None:
                await writer.drain()
                await step.gate.wait()
            for piece in step.pieces:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            if step.then == "hold":
                await asyncio.sleep(3600)
            elif step.then == "end":
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return
        status, body = 200, b""
        if isinstance(step, Listing):
            await asyncio.sleep(step.delay_s)
            metadata = {"resourceVersion": str(step.version), "continue": step.onward}
            body = orjson.dumps({"metadata": metadata, "items": step.items})
        else:
            status, body = step.status, step.body
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()


@contextlib.asynccontextmanager
async def fake_api(secure: ssl.SSLContext | None = None) -> AsyncIterator[FakeApi]:
    """Serve on a free port of 127.0.0.1, over TLS if asked to."""
    api = FakeApi()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await api.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=secure)
    api.url = f"http{'s' if secure else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield api
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
