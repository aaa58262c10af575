"""One HTTP/2 request with prior knowledge, as no common client makes it: with trailers."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

Fields = Iterable[tuple[str, str]]


@dataclass
class Http2Response:
    """What came back. `reset` is the error code of a stream that was reset."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.headers[":status"])


class Http2Client:
    """One connection, one stream at a time."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._connection = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._connection.initiate_connection()
        self._flush()

    def __enter__(self) -> "Http2Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def post(self, path: str, headers: Fields, body: bytes, trailers: Fields = ()) -> Http2Response:
        """Send a request and wait for the end of its stream."""
        connection = self._connection
        stream = connection.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)]
        connection.send_headers(stream, [*pseudo, *headers])
        response, rest, ended = Http2Response(), body, False
        trailers = list(trailers)
        sent = False
        while not ended:
            while rest and (room := self._room(stream)):
                connection.send_data(stream, rest[:room], end_stream=not trailers and len(rest) <= room)
                rest = rest[room:]
                sent = sent or (not rest and not trailers)
            if not rest and not sent:
                sent = True
                connection.send_headers(stream, trailers, end_stream=True)
            self._flush()
            ended = self._take(response)
        return response

    def _room(self, stream: int) -> int:
        return min(self._connection.local_flow_control_window(stream), self._connection.max_outbound_frame_size)

    def _flush(self) -> None:
        self._socket.sendall(self._connection.data_to_send())

    def _take(self, response: Http2Response) -> bool:
        """Read once; tell whether the stream is over."""
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed in the middle of a stream")
        over = False
        for event in self._connection.receive_data(data):
            if isinstance(event, ResponseReceived):
                response.headers = dict(event.headers or [])
            elif isinstance(event, DataReceived):
                response.body += event.data or b""
                self._connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, TrailersReceived):
                response.trailers = dict(event.headers or [])
            elif isinstance(event, StreamReset):
                response.reset, over = int(event.error_code or 0), True
            elif isinstance(event, ConnectionTerminated):
                raise ConnectionError(f"the connection was ended with error {event.error_code}")
            elif isinstance(event, StreamEnded):
                over = True
        self._flush()
        return over
