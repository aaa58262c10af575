"""Limits of one exchange: how long a phase may take and how large a body may be."""

from dataclasses import dataclass

MAX_BODY_BYTES = 10 * 1024 * 1024
"""Default cap of a body that passes the callout, bytes (Google's body based router caps at 10 MB)."""

CHUNK_BYTES = 62_000
"""Largest body piece in one answer, bytes: ext_proc v3 recommends at most 64 KB, upstream's picker sends 62,000."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that a service may set; every time is in seconds.

    In FULL_DUPLEX_STREAMED Envoy has no timeout of its own for a callout (its `message_timeout` does not apply), so
    these are the only ones that end a stuck exchange.
    """

    max_body_bytes: int = MAX_BODY_BYTES
    """Larger request bodies get 413; a response body that has to be held whole gets 502."""
    request_headers_s: float = 5.0
    """One `on_request_headers` hook."""
    request_body_s: float = 10.0
    """One `on_request_body` or `on_request_chunk` hook."""
    response_headers_s: float = 5.0
    """One `on_response_headers` hook."""
    response_body_s: float = 10.0
    """One `on_response_body` or `on_response_chunk` hook."""
    upload_idle_s: float = 60.0
    """Silence of a client whose request is being held until it is complete. Each piece that arrives starts it anew."""
    stream_idle_s: float = 3600.0
    """Silence of the proxy in any other state (a model may think for long); ends streams that a peer forgot."""
