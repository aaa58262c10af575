"""A model server that shows what reached it: `python -m tests.support.echo_replica --port=N`.

Takes the place of a simulator where a test asks what arrives at a replica. Any POST is answered with a JSON report:
request line, header fields as they came, size and SHA-256 of the body. A JSON body may ask for more: `"stream": true`
sends each word of `prompt` as a server-sent event, each after `gap` seconds; `delay` waits that long before a report;
`flag` is sent as the response header `x-test-flag`. `GET /seen` tells how many POSTs came.
"""

import argparse
import asyncio
import hashlib
import json
from typing import Any

_METRICS = (
    "vllm:num_requests_running{model_name=\"m\"} 0\nvllm:num_requests_waiting{model_name=\"m\"} 0\n"
    "vllm:kv_cache_usage_perc{model_name=\"m\"} 0\n"
)  # fmt: skip


class EchoReplica:
    """The state of one: how many POSTs have come."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = [line.partition(": ")[::2] for line in head[1:] if line]
                body, trailers = await _body(reader, {name.lower(): value for name, value in fields})
                await self._answer(writer, head[0], fields, body, trailers)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, line: str, fields: list[Any], body: bytes, trailers: list[str]
    ) -> None:
        method, path, _ = line.split(" ")
        if method == "GET":
            pages = {"/metrics": _METRICS, "/seen": str(self.seen)}
            _send(writer, pages.get(path, "").encode(), "text/plain")
            return
        self.seen += 1
        wish = _json(body)
        if wish.get("stream"):
            await _events(writer, str(wish["prompt"]).split(), float(wish.get("gap", 0)))
            return
        await asyncio.sleep(float(wish.get("delay", 0)))
        report = {
            "port": self.port,
            "path": path,
            "headers": fields,
            "trailers": trailers,
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "say": wish.get("say"),
        }
        more = f"x-test-flag: {wish['flag']}\r\n" if "flag" in wish else ""
        _send(writer, json.dumps(report).encode(), "application/json", more)


async def _events(writer: asyncio.StreamWriter, words: list[str], gap: float) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for data in [*(json.dumps({"choices": [{"text": word}]}) for word in words), "[DONE]"]:
        event = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        await asyncio.sleep(gap)
    writer.write(b"0\r\n\r\n")


def _json(body: bytes) -> dict[str, Any]:
    """Return a body that is one JSON object; {} for any other, which is reported all the same."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _send(writer: asyncio.StreamWriter, body: bytes, kind: str, more: str = "") -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{more}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[bytes, list[str]]:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0))), []
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers.append(line.decode("latin-1").strip())
    return b"".join(parts), trailers


async def _main(port: int) -> None:
    server = await asyncio.start_server(EchoReplica(port).serve, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_main(parser.parse_known_args()[0].port))
