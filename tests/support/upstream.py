"""A tiny HTTP/1.1 upstream for proxies under test: echoes, streams events, keeps what it has seen."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = field(default_factory=dict)


class Upstream:
    """Answers by path: `/echo` the request's body; `/events?n=8&gap=0.05` server-sent events; `/trailers` the body,
    chunked, with trailers; `/bytes?size=N` N bytes; `/silent` headers, then nothing until the client goes away."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.gone = asyncio.Event()
        """Set when a client left during `/silent` or `/events`."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> "Upstream":
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        return self

    async def stop(self) -> None:
        """Stop listening and break off what is still open."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                seen = await _read_request(reader)
                self.requests.append(seen)
                await self._answer(seen, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = urlsplit(seen.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/events":
            await self._events(writer, int(query.get("n", 8)), float(query.get("gap", 0)))
        elif url.path == "/trailers":
            writer.write(_head("application/grpc", None, "trailer: x-up\r\n"))
            writer.write(_chunk(seen.body) + b"0\r\nx-up: yes\r\n\r\n")
        elif url.path == "/silent":
            writer.write(_head("text/event-stream", None))
            await writer.drain()
            await reader.read()
            self.gone.set()
        else:
            body = b"b" * int(query["size"]) if url.path == "/bytes" else seen.body
            writer.write(_head("application/json", len(body)) + body)
        await writer.drain()

    async def _events(self, writer: asyncio.StreamWriter, count: int, gap: float) -> None:
        writer.write(_head("text/event-stream", None))
        for number in range(count):
            if writer.is_closing():
                self.gone.set()
                return
            writer.write(_chunk(b"data: %d\n\n" % number))
            await writer.drain()
            await asyncio.sleep(gap)
        writer.write(b"0\r\n\r\n")


def _head(kind: str, length: int | None, more: str = "") -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{more}{size}\r\n\r\n".encode()


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


async def _read_request(reader: asyncio.StreamReader) -> Seen:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = _fields(lines[1:])
    body, trailers = b"", {}
    if headers.get("transfer-encoding") == "chunked":
        parts: list[bytes] = []
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        tail = await reader.readuntil(b"\r\n")
        while not tail.endswith(b"\r\n\r\n") and tail != b"\r\n":
            tail += await reader.readuntil(b"\r\n")
        body, trailers = b"".join(parts), _fields(tail.decode("latin-1").split("\r\n"))
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    return Seen(method, path, headers, body, trailers)


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}
