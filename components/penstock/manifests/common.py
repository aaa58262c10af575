"""Pieces that several manifests share."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._labels import labels
from ..errors import ConfigError, did_you_mean

Manifest = dict[str, Any]
"""A Kubernetes object or a part of one, in camelCase."""

GATEWAY_API = "gateway.networking.k8s.io"
GKE_API = "networking.gke.io"
INFERENCE_API = "inference.networking.k8s.io"
APIGEE_API = "apim.googleapis.com"
"""API groups. Source: Gateway API 1.5, GKE Gateway, Gateway API Inference Extension 1.6, Apigee Operator 1.1."""

WAIT_FOR = "pulumi.com/waitFor"
WAIT_TIMEOUT = "pulumi.com/timeoutSeconds"
"""Await annotations; custom resources count as ready at once without them. Source: Pulumi Kubernetes provider 4.34."""

POD_SECURITY = ("restricted", "baseline", "privileged")
"""Levels of the Pod Security Standards, strictest first. Source: Kubernetes, "Pod Security Standards"."""

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTP]|[KMGTP]i)?")
MODEL_NAME_MAX = 256
"""Longest model name, in characters. Source: limit of Google's body based router, which Penstock's keeps."""


def manifest(
    api_version: str, kind: str, name: str, namespace: str | None, tags: Mapping[str, str], **fields: Any
) -> Manifest:
    """Return an object with its metadata: `tags` are labels, `fields` other top-level fields (`spec`, ...)."""
    metadata: Manifest = {"name": name, "labels": dict(tags)}
    if namespace is not None:
        metadata["namespace"] = namespace
    annotations = fields.pop("annotations", None)
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def service_account(name: str, namespace: str, tags: Mapping[str, str]) -> Manifest:
    """Return a ServiceAccount of its own for a workload that calls no Kubernetes API, hence without a token."""
    return manifest("v1", "ServiceAccount", name, namespace, tags, automountServiceAccountToken=False)


def disruption_budget(name: str, namespace: str, tags: Mapping[str, str], pods: Mapping[str, str]) -> Manifest:
    """Return a budget that lets one pod at a time be evicted: it never blocks the drain of a node for good."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": dict(pods)}}
    return manifest("policy/v1", "PodDisruptionBudget", name, namespace, tags, spec=spec)


def pod_security(user: int) -> Manifest:
    """Return the pod's securityContext by the "restricted" Pod Security Standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return the container's securityContext by the "restricted" Pod Security Standard, with a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def spread(pods: Mapping[str, str]) -> list[Manifest]:
    """Return constraints that spread pods over zones, then nodes, and yield when that is not possible."""
    keys = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(pods)},
        }
        for key in keys
    ]


def target_ref(group: str, kind: str, name: str) -> Manifest:
    """Return a policy's reference to an object of its own namespace."""
    return {"group": group, "kind": kind, "name": name}


def health_check_policy(name: str, namespace: str, target: Manifest, config: Manifest, interval_s: int) -> Manifest:
    """Return a HealthCheckPolicy. Without one GKE probes `GET /`, which neither callouts nor replicas answer with 200.

    Source: networking.gke.io/v1 HealthCheckPolicy; `timeoutSec` may not exceed `checkIntervalSec`.
    """
    default = {"checkIntervalSec": interval_s, "timeoutSec": interval_s, "config": config}
    spec = {"default": default, "targetRef": target}
    return manifest(f"{GKE_API}/v1", "HealthCheckPolicy", name, namespace, labels(target["name"]), spec=spec)


def check_range(path: str, value: int | float, low: int | float, high: int | float, what: str) -> Iterator[ConfigError]:
    """Yield an error unless `low <= value <= high`; `what` names the thing and its unit."""
    if not low <= value <= high:
        fix = f"Choose a value {'of at least ' + str(low) if value < low else 'of at most ' + str(high)}"
        yield ConfigError(path, value, f"{what} from {low} to {high}", fix)


def mebibytes(amount: int) -> str:
    """Return a quantity as the API server writes it back; written otherwise, a refresh would show a change."""
    return f"{amount}Mi" if amount % 1024 else f"{amount // 1024}Gi"


def check_word(path: str, value: str, known: Iterable[str], what: str = "") -> Iterator[ConfigError]:
    """Yield an error unless `value` is one of the `known` words; `what` says what they are, default their list."""
    words = list(known)
    if value not in words:
        yield ConfigError(path, value, what or f"one of {', '.join(words)}", did_you_mean(value, words))


def check_words(path: str, values: Sequence[str], known: Iterable[str], what: str = "") -> Iterator[ConfigError]:
    """Yield an error for each of `values` that is none of the `known` words, or stands there twice."""
    words = list(known)
    for index, value in enumerate(values):
        yield from check_word(f"{path}[{index}]", value, words, what)
        if value in values[:index]:
            yield ConfigError(f"{path}[{index}]", value, "each of them once", "Remove it")


def check_mode_fields(
    path: str, args: Mapping[str, Any], mode: str, fields: Mapping[str, Sequence[str]]
) -> Iterator[ConfigError]:
    """Yield an error for each field that other modes read and `mode` does not: it would promise what does not happen.

    Args:
        path: where the arguments stand.
        args: the arguments.
        mode: the one that is chosen.
        fields: by mode, those that only some modes read.
    """
    for field in sorted({field for names in fields.values() for field in names}):
        readers = [each for each, names in fields.items() if field in names]
        if args.get(field) is not None and mode not in readers:
            expected = f"mode {' or '.join(readers)}: mode {mode} does not read it"
            shown = args[field] if isinstance(args[field], str | int | float) else "..."
            yield ConfigError(f"{path}.{field}", shown, expected, "Remove it, or change the mode")


def check_quantity(path: str, value: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` is a Kubernetes quantity without sign or exponent."""
    if not _QUANTITY.fullmatch(value):
        yield ConfigError(path, value, "a Kubernetes quantity", "Write it like `500m`, `2` or `16Gi`")


def check_image(path: str, value: Any) -> Iterator[ConfigError]:
    """Yield an error unless `value` is an image reference with a tag other than `latest`, or a digest."""
    if not isinstance(value, str):
        return  # a Pulumi output: known only in the update
    name, _, tag = value.rpartition("/")[2].partition(":")
    if not name or re.search(r"\s", value) or ("@sha256:" not in value and tag in ("", "latest")):
        yield ConfigError(path, value, "an image pinned by tag or digest", "Append a version, e.g. `:v1.2.3`")


def check_model_name(path: str, value: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` may name a model: it becomes the value of a header."""
    if not 1 <= len(value) <= MODEL_NAME_MAX or not all(" " < char <= "~" for char in value):
        expected = f"1 to {MODEL_NAME_MAX} visible ASCII characters without blanks"
        yield ConfigError(path, value, expected, "Rename it")
