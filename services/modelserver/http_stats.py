"""Counts of HTTP requests, by handler, as vLLM's server exposes them."""

import time

from services.modelserver.exposition import family, histogram_family, labels
from services.modelserver.stats import Histogram

_UNCOUNTED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
_FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5),
    *(10.0, 30.0, 60.0),
)
_COARSE = (0.1, 0.5, 1.0)


class _Handler:
    """Counts of one path and method."""

    def __init__(self) -> None:
        self.created = time.time()
        self.statuses: dict[str, tuple[int, float]] = {}
        """`2xx` -> (requests, when the first came)."""
        self.requests = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.duration = Histogram(_COARSE)


class HttpStats:
    """All handlers."""

    def __init__(self) -> None:
        self._created = time.time()
        self._duration = Histogram(_FINE)
        self._handlers: dict[tuple[str, str], _Handler] = {}
        self._rendered: tuple[int, str] = (-1, "")

    def count(self, path: str, method: str, status: int, sizes: tuple[int, int], seconds: float) -> None:
        """Count one answered request; `sizes`: bytes of request and answer."""
        if path in _UNCOUNTED or path.startswith("/sim/"):
            return
        handler = self._handlers.get((path, method))
        if handler is None:
            handler = self._handlers.setdefault((path, method), _Handler())
        group = f"{status // 100}xx"
        number, created = handler.statuses.get(group, (0, 0.0))
        handler.statuses[group] = (number + 1, created or time.time())
        handler.requests += 1
        handler.request_bytes += sizes[0]
        handler.response_bytes += sizes[1]
        handler.duration.observe(seconds)
        self._duration.observe(seconds)

    def render(self) -> str:
        """Return the exposition text, rendered again only after a change."""
        if self._rendered[0] != self._duration.number:
            self._rendered = (self._duration.number, self._build())
        return self._rendered[1]

    def _build(self) -> str:
        total, created = [], []
        for (path, method), handler in self._handlers.items():
            for group, (number, since) in handler.statuses.items():
                where = labels({"handler": path, "method": method, "status": group})
                total.append((where, float(number)))
                created.append((where, since))
        text = "Requests by method, status and handler"
        parts = [family("http_requests_total", "counter", text, total)]
        if created:
            parts.append(family("http_requests_created", "gauge", text, created))
        parts.append(self._summary("http_request_size_bytes", "request_bytes"))
        parts.append(self._summary("http_response_size_bytes", "response_bytes"))
        name = "http_request_duration_highr_seconds"
        parts.append(histogram_family(name, "Duration of requests, fine", {}, self._duration, self._created))
        parts.append(self._durations())
        return "".join(parts)

    def _by_path(self) -> dict[str, list[_Handler]]:
        paths: dict[str, list[_Handler]] = {}
        for (path, _), handler in self._handlers.items():
            paths.setdefault(path, []).append(handler)
        return paths

    def _summary(self, name: str, size: str) -> str:
        text = "Bytes by handler, from the content length"
        lines = [f"# HELP {name} {text}", f"# TYPE {name} summary"]
        created = []
        for path, handlers in self._by_path().items():
            where = labels({"handler": path})
            lines.append(f"{name}_count{where} {float(sum(h.requests for h in handlers))}")
            lines.append(f"{name}_sum{where} {float(sum(getattr(h, size) for h in handlers))}")
            created.append((where, min(h.created for h in handlers)))
        rest = family(f"{name}_created", "gauge", text, created) if created else ""
        return "\n".join(lines) + "\n" + rest

    def _durations(self) -> str:
        name, text = "http_request_duration_seconds", "Duration of requests by handler"
        lines = [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        created = []
        for (path, method), handler in self._handlers.items():
            base = {"handler": path, "method": method}
            block = histogram_family(name, text, base, handler.duration, handler.created).splitlines()
            lines += [line for line in block if line.startswith((f"{name}_bucket", f"{name}_count", f"{name}_sum"))]
            created.append((labels(base), handler.created))
        rest = family(f"{name}_created", "gauge", text, created) if created else ""
        return "\n".join(lines) + "\n" + rest
