"""Between protobuf messages and the plain values that sessions work with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf import struct_pb2

from services.extproc.api import HeaderChanges, Reply
from services.extproc.limits import CHUNK_BYTES
from services.extproc.proto import ext_proc_pb2 as pb

M = TypeVar("M")
T = TypeVar("T")

_NOTHING: Mapping[str, Mapping[str, object]] = {}
_OVERWRITE = bytes((3 << 3, pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD))
"""Field 3 of HeaderValueOption, `append_action`, as it is on the wire."""
MAX_REMEMBERED = 64
"""Longest value, characters, that is remembered in its wire format."""
_LENGTHS = [bytes((length,)) for length in range(128)]


@dataclass(frozen=True, slots=True)
class Side:
    """Names of one direction: protobuf fields (the same in both messages), hooks and `Exchange` attributes."""

    name: str
    headers: str = field(init=False)
    body: str = field(init=False)
    trailers: str = field(init=False)
    changes: str = field(init=False)
    body_changed: str = field(init=False)
    on_headers: str = field(init=False)
    on_body: str = field(init=False)
    on_chunk: str = field(init=False)

    def __post_init__(self) -> None:
        for part in ("headers", "body", "trailers", "changes", "body_changed"):
            object.__setattr__(self, part, f"{self.name}_{part}")
        for hook in ("headers", "body", "chunk"):
            object.__setattr__(self, f"on_{hook}", f"on_{self.name}_{hook}")


REQUEST, RESPONSE = Side("request"), Side("response")


def read_headers(headers: pb.HeaderMap) -> list[tuple[str, bytes]]:
    """Return the header fields; Envoy fills `raw_value`, other proxies may fill `value`."""
    return [(header.key, header.raw_value or header.value.encode()) for header in headers.headers]


def headers_answer(side: Side, changes: HeaderChanges, clear_route_cache: bool) -> pb.ProcessingResponse:
    """Let the headers go on with `changes`."""
    message = pb.ProcessingResponse()
    answer = getattr(message, side.headers)
    answer.SetInParent()
    _change(answer, changes, clear_route_cache)
    return message


def body_answer(
    side: Side, body: bytes | None, changes: HeaderChanges | None, clear_route_cache: bool
) -> pb.ProcessingResponse:
    """Answer one body message of STREAMED or BUFFERED: None leaves the body as it came, `b""` takes it away."""
    message = pb.ProcessingResponse()
    answer = getattr(message, side.body)
    answer.SetInParent()
    if changes is not None:
        _change(answer, changes, clear_route_cache)
    if body:
        answer.response.body_mutation.body = body
    elif body is not None:
        answer.response.body_mutation.clear_body = True
    return message


def pieces(side: Side, body: bytes, last: bool) -> list[pb.ProcessingResponse]:
    """Send `body` on in FULL_DUPLEX_STREAMED, cut to size; with `last` the body ends there."""
    size = len(body)
    if size <= CHUNK_BYTES:
        return [_piece(side, body, last)] if size or last else []
    return [
        _piece(side, body[start : start + CHUNK_BYTES], last and start + CHUNK_BYTES >= size)
        for start in range(0, size, CHUNK_BYTES)
    ]


def trailers_answer(side: Side) -> pb.ProcessingResponse:
    """Let the trailers go on."""
    message = pb.ProcessingResponse()
    getattr(message, side.trailers).SetInParent()
    return message


def immediate_answer(reply: Reply) -> pb.ProcessingResponse:
    """Answer the client in place of the upstream."""
    message = pb.ProcessingResponse()
    answer = message.immediate_response
    answer.status.code = reply.status
    answer.body = reply.body
    answer.details = reply.details
    _set_headers(answer.headers, reply.headers)
    return message


def write_struct(struct: struct_pb2.Struct, values: Mapping[str, object]) -> None:
    """Fill `struct` from plain values. Raises TypeError for what a Struct cannot hold."""
    fields = struct.fields
    for key, value in values.items():
        _write_value(fields[key], value)


class Lazy(Mapping[str, T]):
    """A protobuf map as plain values, each converted when it is looked at: most filters look at few or none."""

    __slots__ = ("_done", "_read", "_source")

    def __init__(self, source: Mapping[str, M], read: Callable[[M], T]) -> None:
        self._source, self._read = source, read
        self._done: dict[str, T] = {}

    def __getitem__(self, key: str) -> T:
        if key not in self._done:
            if key not in self._source:  # a protobuf map would create the entry
                raise KeyError(key)
            self._done[key] = self._read(self._source[key])
        return self._done[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value as `Mapping` does, without an exception for what is not there."""
        return self[key] if key in self._source else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)


def read_structs(structs: Mapping[str, struct_pb2.Struct]) -> Mapping[str, Mapping[str, object]]:
    """Return a protobuf map of Structs as plain values."""
    return Lazy(structs, _read_fields) if structs else _NOTHING


def _piece(side: Side, body: bytes, last: bool) -> pb.ProcessingResponse:
    message = pb.ProcessingResponse()
    piece = getattr(message, side.body).response.body_mutation.streamed_response
    piece.SetInParent()
    piece.body = body
    if last:
        piece.end_of_stream = True
    return message


def _change(answer: pb.HeadersResponse | pb.BodyResponse, changes: HeaderChanges, clear_route_cache: bool) -> None:
    if changes.set:
        _set_headers(answer.response.header_mutation, changes.set)
    if changes.remove:
        answer.response.header_mutation.remove_headers.extend(sorted(changes.remove.difference(changes.set)))
    if clear_route_cache:
        answer.response.clear_route_cache = True


def _set_headers(mutation: pb.HeaderMutation, headers: Mapping[str, str]) -> None:
    """Overwrite headers. Envoy reads `raw_value` alone: a header with only `value` arrives empty.

    Written as protobuf's wire format and taken up in one call: setting each field costs several times as much.
    """
    parts = [_short(*item) if len(item[1]) <= MAX_REMEMBERED else _overwrite(*item) for item in headers.items()]
    mutation.MergeFromString(b"".join(parts))


def _overwrite(name: str, value: str) -> bytes:
    """Return one element of `HeaderMutation.set_headers` on the wire."""
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"header {name!r}: a value must not contain line breaks or NUL")
    raw = value.encode("utf-8", "surrogateescape")
    header = _field(b"\x0a", name.encode()) + (_field(b"\x1a", raw) if raw else b"")
    return _field(b"\x0a", _field(b"\x0a", header) + _OVERWRITE)


_short = lru_cache(4096)(_overwrite)
"""Most headers that are set are the same for many exchanges."""


def _field(tag: bytes, data: bytes) -> bytes:
    """Return a field of bytes: tag, length, data (protobuf encoding, "Length-Delimited Records")."""
    rest = len(data)
    if rest < 128:
        return tag + _LENGTHS[rest] + data
    length = bytearray()
    while rest >= 128:
        length.append(rest & 127 | 128)
        rest >>= 7
    length.append(rest)
    return tag + length + data


def _write_value(target: struct_pb2.Value, value: object) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, Mapping):
        struct = target.struct_value
        struct.SetInParent()
        write_struct(struct, value)
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, list | tuple):
        target.list_value.SetInParent()
        for item in value:
            _write_value(target.list_value.values.add(), item)
    elif value is None:
        target.null_value = struct_pb2.NULL_VALUE
    else:
        raise TypeError(f"metadata cannot hold {type(value).__name__}; use text, numbers, booleans, lists or mappings")


def _read_fields(struct: struct_pb2.Struct) -> Mapping[str, object]:
    return Lazy(struct.fields, _read_value)


def _read_struct(struct: struct_pb2.Struct) -> dict[str, object]:
    return {key: _read_value(value) for key, value in struct.fields.items()}


def _read_value(value: struct_pb2.Value) -> object:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "struct_value":
        return _read_struct(value.struct_value)
    if kind == "list_value":
        return [_read_value(item) for item in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    return getattr(value, kind)
