"""The DaemonSet that puts NCCL with Google's RDMA plugin (gIB) onto nodes with RDMA interfaces.

Knows nothing of Pulumi. GKE installs GPU drivers by itself, not this plugin. Pods of one replica must use one version
of it: change the image while no replica that spans nodes is running.
"""

from collections.abc import Iterator

from .._labels import labels, selector
from ..errors import ConfigError
from .chips import GPU_TYPE_LABEL
from .common import Manifest, check_image, manifest

NAMESPACE = "kube-system"
NAME = "nccl-rdma-installer"

IMAGES = {
    8: "us-docker.pkg.dev/gce-ai-infra/gpudirect-gib/nccl-plugin-gib:v1.1.0",
    4: "us-docker.pkg.dev/gce-ai-infra/gpudirect-gib/nccl-plugin-gib-arm64:v1.1.0",
}
"""Image by RDMA interfaces of the machine: four have the Arm machines only. Source: container-engine-accelerators,
gpudirect-rdma, release of 2025-08-15."""
GPU_TYPES = {8: ("nvidia-h200-141gb", "nvidia-b200"), 4: ("nvidia-gb200",)}
"""GPU types, as GKE labels nodes, of the machines with that many RDMA interfaces. Source: GKE, "GPUs"."""

_PAUSE = "gke.gcr.io/pause:3.8@sha256:880e63f94b145e46f1b1082bb71b85e21f16b99b180b9996407d61240ceb9830"
_HOST = "/home/kubernetes/bin"
_INSIDE = "/host"

_INSTALL = f"""\
set -e
/scripts/container_entry.sh install --install-nccl
cp -r /var/lib/gib/lib64/. {_INSIDE}/nvidia/lib64
cp -r /var/lib/gib/. {_INSIDE}/gib
"""
_QUIET = """\
for each in /proc/sys/net/ipv4/conf/*rdma*/log_martians; do
  if [ -w "$each" ]; then echo 0 > "$each"; fi
done
"""


def daemon_set(rails: int, image: str | None = None) -> Manifest:
    """Return the DaemonSet for machines with `rails` RDMA interfaces.

    Its work is done by init containers, as root since the host's folder is root's. The installer needs no privilege;
    the other one has it to write to the kernel: packets of RoCE look misrouted, and each would be logged.
    """
    pods = selector(NAME)
    spec = {
        "selector": {"matchLabels": pods},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
        "template": {"metadata": {"labels": labels(NAME)}, "spec": _pod(rails, image or IMAGES[rails])},
    }
    return manifest("apps/v1", "DaemonSet", NAME, NAMESPACE, labels(NAME), spec=spec)


def problems(image: str | None, path: str) -> Iterator[ConfigError]:
    """Yield an error unless `image` is pinned."""
    if image is not None:
        yield from check_image(path, image)


def _pod(rails: int, image: str) -> Manifest:
    expression = {"key": GPU_TYPE_LABEL, "operator": "In", "values": list(GPU_TYPES[rails])}
    terms = [{"matchExpressions": [expression]}]
    return {
        "priorityClassName": "system-node-critical",
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
        "tolerations": [{"operator": "Exists"}],
        "hostNetwork": True,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [
            _init("quiet", image, _QUIET, {"privileged": True}),
            _init("install", image, _INSTALL, {"allowPrivilegeEscalation": False}, "nvidia/lib64", "gib"),
        ],
        "containers": [
            {
                "name": "pause",
                "image": _PAUSE,
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65535,
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        "volumes": [
            {"name": _volume(folder), "hostPath": {"path": f"{_HOST}/{folder}", "type": "DirectoryOrCreate"}}
            for folder in ("nvidia/lib64", "gib")
        ],
    }


def _init(name: str, image: str, script: str, security: Manifest, *folders: str) -> Manifest:
    return {
        "name": name,
        "image": image,
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": {"cpu": "150m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": security,
        "volumeMounts": [{"name": _volume(folder), "mountPath": f"{_INSIDE}/{folder}"} for folder in folders],
    }


def _volume(folder: str) -> str:
    return folder.replace("/", "-")
