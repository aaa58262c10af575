"""OpenTelemetry spans of requests. Nothing of OpenTelemetry is imported where tracing is not configured."""

from typing import TYPE_CHECKING

from services.apimgmt.settings import Tracing

if TYPE_CHECKING:
    from services.apimgmt.telemetry.spans import Spans


def open_spans(tracing: Tracing | None) -> "Spans | None":
    """Return what makes spans, None if tracing is not configured. To be called in the process that serves."""
    if tracing is None:
        return None
    from services.apimgmt.telemetry.spans import Spans

    return Spans(tracing)
