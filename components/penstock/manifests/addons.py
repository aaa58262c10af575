"""Charts that add to a cluster what replicas and autoscalers need. Knows nothing of Pulumi."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._labels import labels
from ..errors import ConfigError
from .common import Manifest, check_image, check_words, manifest
from .location import check_project, check_project_number
from .pool import OBJECTIVE_APIS

if TYPE_CHECKING:
    from ..addons import ClusterAddonsArgs

LWS_API = "leaderworkerset.x-k8s.io"
KEDA_ACCOUNT = "keda-operator"
"""ServiceAccount that asks Cloud Monitoring. Source: KEDA chart 2.20, `serviceAccount.operator.name`."""

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?")


@dataclass(frozen=True, slots=True)
class Chart:
    """A Helm chart, pinned.

    Attributes:
        name: of the release.
        namespace: that it is installed into; made here.
        chart: reference, or name within `repository`.
        version: of the chart, exact.
        repository: URL of a classic repository, empty for a reference that starts with `oci://`.
        values: that differ from the chart's.
    """

    name: str
    namespace: str
    chart: str
    version: str
    repository: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def leader_worker_set(args: "ClusterAddonsArgs") -> Chart:
    """Return the controller of LeaderWorkerSets; it makes the certificates of its webhooks itself.

    Source: kubernetes-sigs/lws v0.10.0, charts/lws.
    """
    seccomp = {"podSecurityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}
    version = args.get("leader_worker_set_version", "0.10.0")
    return Chart("lws", "lws-system", "oci://registry.k8s.io/lws/charts/lws", version, values=seccomp)


def keda(args: "ClusterAddonsArgs") -> Chart:
    """Return KEDA, with less than its chart gives it.

    It scales Deployments and LeaderWorkerSets instead of every kind, reads Secrets of its own namespace instead of all,
    and its kinds are not added to the cluster's default roles. Source: kedacore/charts v2.20.2.
    """
    restricted = {"restrict": {"secret": True}}
    values: dict[str, Any] = {
        "rbac": {
            "aggregateToDefaultRoles": False,
            "scaledRefKinds": [{"apiGroup": LWS_API, "kind": "leaderworkersets"}],
        },
        "permissions": {"operator": restricted, "metricServer": restricted},
    }
    if "keda_namespace" in args:
        values["watchNamespace"] = args["keda_namespace"]
    url = "https://kedacore.github.io/charts"
    return Chart("keda", "keda", "keda", args.get("keda_version", "2.20.2"), url, values)


def namespace(name: str, level: str) -> Manifest:
    """Return a Namespace whose pods must meet the Pod Security Standard `level`."""
    return manifest("v1", "Namespace", name, None, labels(name) | {"pod-security.kubernetes.io/enforce": level})


def objective_group(api: str) -> str:
    """Return the API group of a picker's objectives."""
    return OBJECTIVE_APIS[api].partition("/")[0]


def problems(args: "ClusterAddonsArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be declared."""
    for chart, owner in (("leader_worker_set_version", "leader_worker_set"), ("keda_version", "keda")):
        version = args.get(chart)
        if version is not None and not _VERSION.fullmatch(str(version)):
            fix = "Write it like `1.2.3`, charts are pinned"
            yield ConfigError(f"{path}.{chart}", version, "an exact chart version", fix)
        yield from _needs(args, chart, owner, path)
    yield from _needs(args, "keda_namespace", "keda", path)
    yield from _needs(args, "custom_metrics_image", "custom_metrics", path)
    if "custom_metrics_image" in args:
        yield from check_image(f"{path}.custom_metrics_image", args["custom_metrics_image"])
    yield from check_project(f"{path}.project", args.get("project"))
    if args.get("keda") or args.get("custom_metrics"):
        for name in ("project", "project_number"):
            if name not in args:
                expected = "a value: autoscaling by metrics reads Cloud Monitoring"
                yield ConfigError(f"{path}.{name}", None, expected, "Set it")
    if "project_number" in args:
        yield from check_project_number(f"{path}.project_number", args["project_number"])
    yield from check_words(f"{path}.objective_apis", args.get("objective_apis", []), OBJECTIVE_APIS)


def _needs(args: "ClusterAddonsArgs", name: str, owner: str, path: str) -> Iterator[ConfigError]:
    given: dict[str, Any] = dict(args)
    if name in given and not given.get(owner):
        yield ConfigError(f"{path}.{name}", given[name], f"`{owner}`", f"Turn `{owner}` on, or remove it")
