"""Settings that the workloads of all traffic callouts share."""

from typing import NotRequired, TypedDict


class CalloutWorkload(TypedDict):
    """How many pods a callout has, and what each of them may use."""

    replicas: NotRequired[int]
    """Pods. Default 2; 1 with the embedded store."""
    cpu: NotRequired[str]
    """CPU request per pod. Default `500m`."""
    memory: NotRequired[str]
    """Memory request and limit per pod. Default `512Mi`."""
    log_level: NotRequired[str]
    """`debug`, `info`, `warning` or `error`. Default `info`."""
    drain_timeout_s: NotRequired[int]
    """Seconds to finish open streams after SIGTERM. Default 30."""
    stream_timeout_s: NotRequired[int]
    """Seconds that one request may keep the callout busy, answer included. Default 3600."""
    tls_secret: NotRequired[str]
    """TLS Secret of the callout's server. Default: it makes a self-signed certificate, which GKE accepts."""
    monitoring: NotRequired[bool]
    """Whether managed Prometheus reads the callout's metrics. Default false."""
