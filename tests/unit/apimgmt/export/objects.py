"""An object server of our own: what Cloud Storage's XML API and the metadata server answer, and how servers fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "ya29.token-of-the-metadata-server"


class Objects:
    """Its content, and how it behaves."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.puts: list[str] = []
        """Paths of all attempts."""
        self.fail = 0
        """So many of the next attempts are answered 500."""
        self.lose = 0
        """So many of the next are done, and answered 500 nevertheless."""
        self.status = 0
        """All attempts are answered with this one."""
        self.hang = threading.Event()
        self.hang.set()
        """While it is not set, attempts wait."""
        self.waiting = threading.Event()
        self.tokens: list[str] = []
        self.url = ""
        self.host = ""

    def put(self, path: str, body: bytes, only_new: bool) -> int:
        self.puts.append(path)
        self.waiting.set()
        self.hang.wait(20)
        if self.status:
            return self.status
        if self.fail:
            self.fail -= 1
            return 500
        if only_new and path in self.held:
            return 412
        self.held[path] = body
        if self.lose:
            self.lose -= 1
            return 500
        return 200


def _handler(objects: Objects) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            good = self.headers.get("metadata-flavor") == "Google" and self.path.startswith("/computeMetadata/v1/")
            self.answer(200 if good else 404, f'{{"access_token":"{TOKEN}","expires_in":3599}}'.encode())

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            objects.tokens.append(self.headers.get("authorization", ""))
            only_new = self.headers.get("x-goog-if-generation-match") == "0" or self.headers.get("if-none-match") == "*"
            status = objects.put(unquote(self.path), body, only_new)
            text = f"<Error><Code>SomeCode</Code><Message>{objects.tokens[-1]}</Message></Error>"
            self.answer(status, b"" if status == 200 else text.encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def object_server() -> Iterator[Objects]:
    """Run one on a free port of 127.0.0.1."""
    objects = Objects()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(objects))
    server.daemon_threads = True
    objects.host = f"127.0.0.1:{server.server_port}"
    objects.url = f"http://{objects.host}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield objects
    finally:
        objects.hang.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
