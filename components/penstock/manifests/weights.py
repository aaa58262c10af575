"""Weights and adapters in a bucket: how a replica reads them, and what it may read.

The replica's own ServiceAccount is the reader, by Workload Identity: no key, no Google service account.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._identity import condition, principal
from ..errors import ConfigError
from .common import Manifest, check_word, container_security
from .location import check_project_number

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs, Weights

MODEL_DIR = "/models"
ADAPTER_DIR = "/adapters"
"""Where the folders of a bucket are mounted."""

FUSE = "fuse"
STREAMER = "streamer"
METHODS = (FUSE, STREAMER)

READER = "roles/storage.objectViewer"
LISTER = "roles/storage.legacyBucketReader"
"""Roles on the bucket: reading objects, and listing their names. Source: Cloud Storage, "IAM roles"."""

CSI_DRIVER = "gcsfuse.csi.storage.gke.io"
_ANNOTATIONS: Mapping[str, str] = {
    "gke-gcsfuse/volumes": "true",
    "gke-gcsfuse/cpu-limit": "0",
    "gke-gcsfuse/memory-limit": "0",
    "gke-gcsfuse/ephemeral-storage-limit": "0",
}
"""Ask for the sidecar that mounts, without limits of its own: parallel downloads use what the node has. Source: GKE,
"Configure the Cloud Storage FUSE CSI driver sidecar container"."""

_MODEL_OPTIONS = (
    "implicit-dirs",
    "metadata-cache:ttl-secs:-1",
    "metadata-cache:stat-cache-max-size-mb:-1",
    "metadata-cache:type-cache-max-size-mb:-1",
    "file-cache:max-size-mb:-1",
    "file-cache:cache-file-for-range-read:true",
    "file-cache:enable-parallel-downloads:true",
    "file-system:kernel-list-cache-ttl-secs:-1",
    "read_ahead_kb=1024",
)
"""For weights, which do not change below a replica: everything is cached, files come in parallel chunks. Source: GKE,
"Optimize Cloud Storage FUSE CSI driver for GKE performance", recommendations for inference."""
_ADAPTER_OPTIONS = ("implicit-dirs", "metadata-cache:ttl-secs:60")
"""For adapters, which come while replicas run: a new folder is seen within a minute."""

FILE_CACHE = "gke-gcsfuse-cache"
"""Volume of the file cache; the driver knows it by this name. Source: as the options."""

_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
_WAIT_S = 300
_WAIT = f"""\
import sys, time, urllib.request
request = urllib.request.Request({_METADATA!r}, headers={{"Metadata-Flavor": "Google"}})
deadline = time.monotonic() + {_WAIT_S}
while True:
    try:
        urllib.request.urlopen(request, timeout=5).close()
        break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"no token from the metadata server within {_WAIT_S} s: {{error}}")
        time.sleep(1)
"""
"""On a new node the metadata server answers some seconds late, and clients that ask earlier give up. Source: GKE,
"Known issues", Workload Identity, versions from 1.35."""

_BUCKET = re.compile(r"[a-z0-9]([-a-z0-9_.]{1,61})[a-z0-9]")
_FOLDER = re.compile(r"[\w.=-]+(/[\w.=-]+)*")


@dataclass(frozen=True, slots=True)
class Grant:
    """One role of the replicas' ServiceAccount on the bucket; `role` names the resource, `condition` may be None."""

    role: str
    roles: str
    member: str
    condition: Mapping[str, str] | None


def source(args: "ModelReplicaSetArgs") -> str:
    """Return what `vllm serve` loads: a model id, a path in the container, or a folder of a bucket."""
    weights = args.get("weights")
    if weights is None:
        return args["source"]
    return f"gs://{weights['bucket']}/{weights.get('path', '')}".rstrip("/") if _streams(weights) else MODEL_DIR


def load_flags(args: "ModelReplicaSetArgs") -> list[str]:
    """Return the flags of `vllm serve` that the way of loading needs. Source: vLLM 0.32, `LoadConfig`."""
    weights = args.get("weights")
    return ["--load-format=runai_streamer"] if weights and _streams(weights) else []


def environment(args: "ModelReplicaSetArgs") -> dict[str, str]:
    """Return variables: where vLLM looks up an adapter that a request names and that is not loaded yet.

    vLLM's file system resolver is on where the folder is set. Source: vLLM 0.32, plugins `lora_filesystem_resolver`.
    """
    weights = args.get("weights", {})
    dynamic = weights.get("adapters_path") and args.get("allow_runtime_lora_updates")
    return {"VLLM_LORA_RESOLVER_CACHE_DIR": ADAPTER_DIR} if dynamic else {}


def annotations(args: "ModelReplicaSetArgs") -> dict[str, str]:
    """Return annotations of the pod."""
    return dict(_ANNOTATIONS) if list(_mounted(args)) else {}


def volumes(args: "ModelReplicaSetArgs", user: int) -> list[Manifest]:
    """Return the volumes: one for each folder, read-only and owned by `user`, and the cache of the files."""
    weights = args.get("weights")
    found = [
        {
            "name": name,
            "csi": {
                "driver": CSI_DRIVER,
                "readOnly": True,
                "volumeAttributes": {
                    "bucketName": weights["bucket"],
                    "mountOptions": ",".join((*options, f"uid={user}", f"gid={user}", *_only(folder))),
                    # with a condition on the folder the driver's own question for the whole bucket would be refused
                    "skipCSIBucketAccessCheck": "true",
                },
            },
        }
        for name, _, folder, options in _mounted(args)
        if weights
    ]
    cached = any(name == "weights" for name, *_ in _mounted(args))
    size = {"sizeLimit": f"{args.get('cache_gib', 100)}Gi"}
    return [*found, {"name": FILE_CACHE, "emptyDir": size}] if cached else found


def mounts(args: "ModelReplicaSetArgs") -> list[Manifest]:
    """Return the mounts of the container."""
    return [{"name": name, "mountPath": where, "readOnly": True} for name, where, *_ in _mounted(args)]


def init_containers(args: "ModelReplicaSetArgs") -> list[Manifest]:
    """Return the container that waits for the metadata server, where vLLM itself asks for the identity's token.

    A mount does not need it: the driver gets its token from the kubelet.
    """
    weights = args.get("weights")
    if not weights or not _streams(weights):
        return []
    return [
        {
            "name": "wait-for-identity",
            "image": args["image"],  # has Python, and is pulled anyway
            "command": ["python3", "-c", _WAIT],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
            "securityContext": container_security(),
        }
    ]


def grants(args: "ModelReplicaSetArgs") -> list[Grant]:
    """Return what the ServiceAccount may do with the bucket.

    With folders, only their objects can be read; the names of all objects can be listed all the same, since listing is
    a permission on the bucket, whose name no condition on objects matches, and both the mount and the streamer list.
    """
    weights = args.get("weights")
    if weights is None or not weights.get("grant", True):
        return []
    member = principal(weights["project"], weights["project_number"], args["namespace"], args["name"])
    folders = [folder for folder in (weights.get("path"), weights.get("adapters_path")) if folder]
    if not weights.get("path"):
        return [Grant("weights-reader", READER, member, None)]
    objects = f"projects/_/buckets/{weights['bucket']}/objects"
    expression = " || ".join(f'resource.name.startsWith("{objects}/{folder}/")' for folder in folders)
    limited = condition(f"{args['name']}-weights", expression, "Folders of one set of model replicas")
    return [Grant("weights-reader", READER, member, limited), Grant("weights-lister", LISTER, member, None)]


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the weights cannot be rendered."""
    weights = args.get("weights")
    if (weights is None) == (args.get("source") is None):
        fix = "Remove one of the two" if weights else "Name a model of the hub, or a bucket in `weights`"
        yield ConfigError(f"{path}.source", args.get("source"), "exactly one of `source` and `weights`", fix)
    if weights is None:
        return
    where = f"{path}.weights"
    if not _BUCKET.fullmatch(weights["bucket"]):
        fix = "Write it without `gs://` and without a path"
        yield ConfigError(f"{where}.bucket", weights["bucket"], "the name of a bucket", fix)
    method = weights.get("method", FUSE)
    yield from check_word(f"{where}.method", method, METHODS, "`fuse` or `streamer`")
    fields: tuple[tuple[str, str | None], ...] = (
        ("path", weights.get("path")),
        ("adapters_path", weights.get("adapters_path")),
    )
    for field, folder in fields:
        if folder is not None and (not _FOLDER.fullmatch(folder) or ".." in folder.split("/")):
            fix = "Write it like `gemma/12b`, without slashes at its ends"
            yield ConfigError(f"{where}.{field}", folder, "a folder of the bucket", fix)
    yield from check_project_number(f"{where}.project_number", weights["project_number"])


def _streams(weights: "Weights") -> bool:
    return weights.get("method", FUSE) == STREAMER


def _mounted(args: "ModelReplicaSetArgs") -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield volume name, mount path, folder and options of each folder that is mounted."""
    weights: Any = args.get("weights")
    if weights and not _streams(weights):
        yield "weights", MODEL_DIR, weights.get("path", ""), _MODEL_OPTIONS
    if weights and weights.get("adapters_path"):
        yield "adapters", ADAPTER_DIR, weights["adapters_path"], _ADAPTER_OPTIONS


def _only(folder: str) -> tuple[str, ...]:
    return (f"only-dir={folder}",) if folder else ()
