"""gRPC health (grpc.health.v1) under the names that gateways and kubelets ask for."""

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from services.extproc.server import SERVICE

LIVENESS = "liveness"
READINESS = ("", "readiness", SERVICE, "inference-extension")
"""The endpoint picker protocol v1.0 names `readiness` and the ext_proc service; `inference-extension` is what upstream
charts ask for; the empty name is gRPC's own for the whole server."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of one process: alive from start to end, ready when its service says so and it is not draining."""

    def __init__(self) -> None:
        self._servicer = HealthServicer()
        self._ready: bool | None = None

    async def set(self, ready: bool) -> None:
        """Publish readiness; without effect if nothing changed."""
        if ready is self._ready:
            return
        self._ready = ready
        await self._servicer.set(LIVENESS, _SERVING)
        for name in READINESS:
            await self._servicer.set(name, _SERVING if ready else _NOT_SERVING)

    @property
    def ready(self) -> bool:
        """What was published last."""
        return bool(self._ready)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a gRPC server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
