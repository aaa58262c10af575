"""A model server that costs next to nothing: the same answer to every request, metrics of an idle vLLM.

For benchmarks of the path, where a simulator's own work would be measured along with it. Takes `vllm serve`'s arguments
and uses only `--port`.
"""

import argparse
import asyncio
import socket
from dataclasses import replace
from typing import cast

import uvloop

from cli.local.model import Piece

_ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,'
    b'"total_tokens":2}}'
)
_METRICS = (
    b'vllm:num_requests_running{engine="0",model_name="m"} 0.0\n'
    b'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0\n'
    b'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.0\n'
    b'vllm:cache_config_info{block_size="16",num_gpu_blocks="8192"} 1.0\n'
)


def _response(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)


_ANSWERS = {b"P": _response(b"application/json", _ANSWER), b"G": _response(b"text/plain", _METRICS)}


class _Server(asyncio.Protocol):
    """One request at a time on a connection, as Envoy and scrapers send them."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        at = head.find(b"content-length:")
        if at >= 0:
            if len(self.buffer) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
                return
        elif b"chunked" in head and not self.buffer.endswith(b"0\r\n\r\n"):
            return
        answer = _ANSWERS[bytes(self.buffer[:1])]
        self.buffer.clear()
        self.transport.write(answer)


def piece_of(replica: Piece) -> Piece:
    """Return a replica's piece with this server in its place."""
    return replace(replica, command=(replica.command[0], "-m", "benchmarks.upstream", "--port", str(replica.port)))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_known_args()[0].port))
