"""What the workloads of all traffic callouts have in common, by their settings."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .body_router import check_log_level
from .callout import Callout
from .common import check_quantity, check_range

if TYPE_CHECKING:
    from ..callout_workload import CalloutWorkload

STREAM_TIMEOUT_S = 3600
"""Default time that one request may keep a callout busy: an answer may stream for long."""

_REPLICAS = 2
_DRAIN_S = 30
_CPU, _MEMORY = "500m", "512Mi"


def made(
    name: str,
    module: str,
    namespace: str,
    image: Any,
    ports: tuple[int, int],
    config: Mapping[str, str],
    workload: "CalloutWorkload",
    **more: Any,
) -> Callout:
    """Return the callout `name` that runs `services.<module>`; `ports` are gRPC and health, `more` its other fields."""
    fields: dict[str, Any] = {
        "replicas": workload.get("replicas", _REPLICAS),
        "drain_timeout_s": workload.get("drain_timeout_s", _DRAIN_S),
        "log_level": workload.get("log_level", "info"),
        "tls_secret": workload.get("tls_secret"),
        "cpu": workload.get("cpu", _CPU),
        "memory": workload.get("memory", _MEMORY),
        "monitoring": workload.get("monitoring", False),
    }
    return Callout(
        name=name,
        namespace=namespace,
        module=module,
        role="callout",
        image=image,
        grpc_port=ports[0],
        health_port=ports[1],
        config=config,
        **(fields | more),
    )


def workload_problems(workload: "CalloutWorkload", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the settings cannot be rendered."""
    yield from check_range(f"{path}.replicas", workload.get("replicas", _REPLICAS), 1, 100, "pods")
    yield from check_range(f"{path}.drain_timeout_s", workload.get("drain_timeout_s", _DRAIN_S), 1, 3600, "seconds")
    stream_s = workload.get("stream_timeout_s", STREAM_TIMEOUT_S)
    yield from check_range(f"{path}.stream_timeout_s", stream_s, 1, 2**31 - 1, "seconds")
    yield from check_quantity(f"{path}.cpu", workload.get("cpu", _CPU))
    yield from check_quantity(f"{path}.memory", workload.get("memory", _MEMORY))
    yield from check_log_level(f"{path}.log_level", workload.get("log_level", "info"))
