"""Where bundled API management keeps its state: a file on a volume, Memorystore, or a Valkey pod."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._labels import labels, selector
from .._naming import check_label
from ..errors import ConfigError
from . import guardrails
from .common import (
    Manifest,
    check_image,
    check_quantity,
    check_range,
    check_word,
    container_security,
    manifest,
    pod_security,
    service_account,
)
from .location import check_network

if TYPE_CHECKING:
    from ..api_management import ApiManagementArgs

SQLITE, MEMORYSTORE, VALKEY = "sqlite", "memorystore", "valkey"
KINDS = (SQLITE, MEMORYSTORE, VALKEY)

PORT = 6379
"""Port of Valkey, and of a Memorystore endpoint with cluster mode disabled."""
DATA = f"{guardrails.HOST}-data"
VALKEY_NAME = f"{guardrails.HOST}-valkey"
AUTHORITY = f"{guardrails.HOST}-store"
"""ConfigMap with the authority of Memorystore's certificate, which is public."""

NODE_TYPES = ("SHARED_CORE_NANO", "STANDARD_SMALL", "HIGHMEM_MEDIUM", "HIGHMEM_XLARGE")
"""Source: Memorystore for Valkey, "Instance and node specification"."""

_DATA_DIR = "/var/lib/penstock"
_CA_DIR = "/etc/penstock/store"
_STORAGE_GIB = 10
_USER = 999
"""User `valkey` of the official images."""


def kind(args: "ApiManagementArgs") -> str:
    """Return the kind of store."""
    return args.get("store", {}).get("kind", SQLITE)


def document(args: "ApiManagementArgs") -> Manifest:
    """Return the section `store` of the service's configuration; address and password come as environment."""
    if kind(args) == SQLITE:
        return {"kind": "sqlite", "path": f"{_DATA_DIR}/{guardrails.HOST}.db"}
    if kind(args) == VALKEY:
        return {"kind": "valkey", "auth": "password", "tls": False}
    return {"kind": "valkey", "auth": "iam", "tls": True, "caFile": f"{_CA_DIR}/ca.crt"}


def environment(args: "ApiManagementArgs", address: Any) -> tuple[Manifest, ...]:
    """Return the store's environment variables; `address` is `host:port` and may be an output."""
    if kind(args) == SQLITE:
        return ()
    found: list[Manifest] = [{"name": "PENSTOCK_STORE_ADDRESS", "value": address}]
    if kind(args) == VALKEY:
        found.append({"name": "PENSTOCK_STORE_PASSWORD", "valueFrom": _password(args)})
    return tuple(found)


def volumes(args: "ApiManagementArgs") -> tuple[Manifest, ...]:
    """Return the store's volumes in the service's pod."""
    if kind(args) == SQLITE:
        return ({"name": "data", "persistentVolumeClaim": {"claimName": DATA}},)
    return ({"name": "store", "configMap": {"name": AUTHORITY}},) if kind(args) == MEMORYSTORE else ()


def mounts(args: "ApiManagementArgs") -> tuple[Manifest, ...]:
    """Return where the service's container finds them."""
    if kind(args) == SQLITE:
        return ({"name": "data", "mountPath": _DATA_DIR},)
    return ({"name": "store", "mountPath": _CA_DIR, "readOnly": True},) if kind(args) == MEMORYSTORE else ()


def claim(args: "ApiManagementArgs") -> Manifest:
    """Return SQLite's volume claim. It is not awaited: a volume is bound when the first pod asks for it."""
    spec = _claim_spec(args.get("store", {}).get("storage_gib", _STORAGE_GIB))
    skip = {"pulumi.com/skipAwait": "true"}
    tags = labels(guardrails.HOST)
    return manifest("v1", "PersistentVolumeClaim", DATA, args["namespace"], tags, annotations=skip, spec=spec)


def authority(args: "ApiManagementArgs", certificates: Any) -> Manifest:
    """Return the ConfigMap with Memorystore's authority; `certificates` is PEM text and may be an output."""
    return manifest(
        "v1", "ConfigMap", AUTHORITY, args["namespace"], labels(guardrails.HOST), data={"ca.crt": certificates}
    )


def valkey(args: "ApiManagementArgs") -> list[Manifest]:
    """Return account, Service and StatefulSet of the Valkey pod."""
    namespace, tags = args["namespace"], labels(VALKEY_NAME)
    ports = [{"name": "valkey", "port": PORT, "targetPort": PORT}]
    service = {"clusterIP": "None", "selector": selector(VALKEY_NAME), "ports": ports}
    return [
        service_account(VALKEY_NAME, namespace, tags),
        manifest("v1", "Service", VALKEY_NAME, namespace, tags, spec=service),
        manifest("apps/v1", "StatefulSet", VALKEY_NAME, namespace, tags, spec=_valkey_set(args, tags)),
    ]


def valkey_address(args: "ApiManagementArgs") -> str:
    """Return address and port of the Valkey pod."""
    return f"{VALKEY_NAME}.{args['namespace']}.svc:{PORT}"


def problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the store cannot be rendered."""
    store, replicas = args.get("store"), args.get("workload", {}).get("replicas")
    if kind(args) == SQLITE and replicas not in (None, 1):
        expected = "1 with the store `sqlite`: its file belongs to one pod"
        yield ConfigError(f"{path}.workload.replicas", replicas, expected, "Choose `memorystore` or `valkey`")
    if store is None:
        return
    where = f"{path}.store"
    yield from check_word(f"{where}.kind", store["kind"], KINDS)
    yield from check_range(f"{where}.storage_gib", store.get("storage_gib", _STORAGE_GIB), 1, 65536, "GiB")
    for name in (MEMORYSTORE, VALKEY):
        settings: Any = store.get(name)
        if (settings is None) != (store["kind"] != name):
            expected = (
                f"settings of the store `{name}`" if settings is None else f"nothing: the kind is {store['kind']}"
            )
            yield ConfigError(f"{where}.{name}", settings, expected, "Set it" if settings is None else "Remove it")
        elif settings is not None and name == VALKEY:
            yield from check_image(f"{where}.valkey.image", settings["image"])
            yield from check_label(
                f"{where}.valkey.password_secret.name", settings["password_secret"]["name"], what="a Secret's name"
            )
            yield from check_range(
                f"{where}.valkey.storage_gib", settings.get("storage_gib", _STORAGE_GIB), 1, 65536, "GiB"
            )
            yield from check_quantity(f"{where}.valkey.memory", settings.get("memory", "1Gi"))
        elif settings is not None:
            yield from _memorystore_problems(settings, f"{where}.memorystore")


def _memorystore_problems(settings: Any, path: str) -> Iterator[ConfigError]:
    yield from check_word(f"{path}.node_type", settings.get("node_type", NODE_TYPES[1]), NODE_TYPES)
    yield from check_range(f"{path}.replicas", settings.get("replicas", 1), 0, 5, "replicas")
    yield from check_network(f"{path}.network", settings["network"])
    if settings.get("connection_policy", True) and settings.get("subnetwork") is None:
        expected = "a subnetwork, which the connection policy takes endpoint addresses from"
        yield ConfigError(f"{path}.subnetwork", None, expected, "Set it, or set `connection_policy` to false")


def _password(args: "ApiManagementArgs") -> Manifest:
    secret = args["store"]["valkey"]["password_secret"]
    return {"secretKeyRef": {"name": secret["name"], "key": secret.get("key", "password")}}


def _claim_spec(gib: int) -> Manifest:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": f"{gib}Gi"}}}


def _valkey_set(args: "ApiManagementArgs", tags: dict[str, str]) -> Manifest:
    settings = args["store"]["valkey"]
    pod: Manifest = {
        "serviceAccountName": VALKEY_NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": pod_security(_USER),
        "containers": [_valkey_container(args, settings["image"], settings.get("memory", "1Gi"))],
    }
    volume = {"metadata": {"name": "data"}, "spec": _claim_spec(settings.get("storage_gib", _STORAGE_GIB))}
    return {
        "serviceName": VALKEY_NAME,
        "replicas": 1,
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector(VALKEY_NAME)},
        "template": {"metadata": {"labels": tags}, "spec": pod},
        "volumeClaimTemplates": [volume],
    }


def _valkey_container(args: "ApiManagementArgs", image: str, memory: str) -> Manifest:
    """Return the container: every write is on disk before it is answered, and a full memory refuses writes."""
    ping = {"tcpSocket": {"port": PORT}, "periodSeconds": 5, "timeoutSeconds": 2}
    return {
        "name": "valkey",
        "image": image,
        "command": ["valkey-server"],
        "args": [
            *("--port", str(PORT)),
            *("--dir", "/data"),
            *("--appendonly", "yes"),
            *("--appendfsync", "always"),
            *("--maxmemory-policy", "noeviction"),
            *("--requirepass", "$(VALKEY_PASSWORD)"),
        ],
        "env": [{"name": "VALKEY_PASSWORD", "valueFrom": _password(args)}],
        "ports": [{"name": "valkey", "containerPort": PORT}],
        "resources": {"requests": {"cpu": "250m", "memory": memory}, "limits": {"memory": memory}},
        "readinessProbe": ping,
        "livenessProbe": ping | {"periodSeconds": 10, "failureThreshold": 6},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
