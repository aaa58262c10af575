"""JSON lines on stderr: one object per record; what `extra` holds becomes fields of it."""

import logging
import sys
import time

import orjson

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object. `name` is the process's, e.g. `body-router`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        seconds = time.gmtime(record.created)
        fields: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{int(record.msecs):03d}Z",
            "severity": record.levelname,  # the name that Cloud Logging reads
            "service": self._name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str).decode("utf-8", "replace")


def configure(name: str, level: str) -> None:
    """Send all logs of the process to stderr as JSON lines at `level` (debug, info, warning, error)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(name))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
