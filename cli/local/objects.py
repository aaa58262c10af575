"""Typed access to the Kubernetes objects of a recorded graph."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cli.graph.model import UNKNOWN, Graph
from cli.local.model import PlanError

_SECRET_KEY = "4dabf18193072939515e22adb298388d"  # noqa: S105 - a marker, not a secret
"""Key that marks a special value on Pulumi's wire; a secret carries its text in `value`. Source: pulumi/pulumi sdk."""

ROLE_LABEL = "penstock.dev/role"

LEADER_WORKER_SET = "LeaderWorkerSet"
WORKLOADS = ("Deployment", LEADER_WORKER_SET)
"""Kinds whose pods become processes."""

_AUTOSCALERS = {"HorizontalPodAutoscaler": "minReplicas", "ScaledObject": "minReplicaCount"}
"""Kinds that set the replica count of a workload, with the field of its minimum."""


@dataclass(frozen=True, slots=True)
class Object:
    """One Kubernetes object. `namespace` is `default` where none is declared, as the API server would fill it."""

    kind: str
    namespace: str
    name: str
    raw: Mapping[str, Any]

    @property
    def spec(self) -> Mapping[str, Any]:
        """The object's `spec`, empty where it has none."""
        spec: Mapping[str, Any] = self.raw.get("spec") or {}
        return spec

    @property
    def labels(self) -> Mapping[str, str]:
        """The object's own labels."""
        labels: Mapping[str, str] = self.raw["metadata"].get("labels") or {}
        return labels

    @property
    def pod_template(self) -> Mapping[str, Any]:
        """The pod template of a workload; of a LeaderWorkerSet that of the leader, which alone serves."""
        group: Mapping[str, Any] = self.spec.get("leaderWorkerTemplate") or {}
        template: Mapping[str, Any] = group.get("leaderTemplate") or group.get("workerTemplate") or {}
        return template or self.spec.get("template") or {}

    @property
    def pod_labels(self) -> Mapping[str, str]:
        """Labels that the pods of a workload carry."""
        labels: Mapping[str, str] = (self.pod_template.get("metadata") or {}).get("labels") or {}
        return labels

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Objects:
    """The Kubernetes objects of one graph, by kind and by name."""

    def __init__(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        problems: list[str] = []
        for manifest in manifests:
            found = _object(manifest)
            key = (found.kind, found.namespace, found.name)
            if key in self._objects:
                problems.append(f"{found} is declared twice; give one of them another name")
            problems += [f"{found}: {path} is not known before an update" for path in _unknown_paths(found.raw)]
            self._objects[key] = found
        if problems:
            raise PlanError(problems)

    @classmethod
    def of_graph(cls, graph: Graph) -> "Objects":
        """Return the objects that `graph` declares."""
        return cls(graph.manifests())

    def __iter__(self) -> Iterator[Object]:
        return iter(self._objects.values())

    def of(self, kind: str) -> list[Object]:
        """Return all objects of `kind`, in the order of declaration."""
        return [item for item in self._objects.values() if item.kind == kind]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object, or None."""
        return self._objects.get((kind, namespace, name))

    def policy(self, kind: str, target: Object) -> Object | None:
        """Return the policy of `kind` whose `spec.targetRef` is `target`, or None."""
        for policy in self.of(kind):
            ref = policy.spec.get("targetRef") or {}
            if (policy.namespace, ref.get("kind"), ref.get("name")) == (target.namespace, target.kind, target.name):
                return policy
        return None

    def workloads(self, namespace: str, selector: Mapping[str, str]) -> list[Object]:
        """Return the workloads of `namespace` whose pods match `selector`; an empty selector matches none."""
        return [
            item
            for kind in WORKLOADS
            for item in self.of(kind)
            if item.namespace == namespace and selector and selector.items() <= item.pod_labels.items()
        ]

    def workload(self, key: str) -> Object | None:
        """Return the workload `namespace/name`, or None."""
        namespace, _, name = key.partition("/")
        return next((found for kind in WORKLOADS if (found := self.get(kind, namespace, name))), None)

    def replica_count(self, workload: Object) -> int:
        """Return the declared replicas; with an autoscaler its minimum, but at least 1: nothing scales here."""
        for kind, field in _AUTOSCALERS.items():
            for item in self.of(kind):
                target = item.spec.get("scaleTargetRef") or {}
                target_kind = target.get("kind", "Deployment")  # the default of a ScaledObject
                if (item.namespace, target_kind, target.get("name")) == (
                    workload.namespace,
                    workload.kind,
                    workload.name,
                ):
                    return max(1, int(item.spec.get(field) or 0))
        return int(workload.spec.get("replicas", 1))


def _object(manifest: Mapping[str, Any]) -> Object:
    raw = _plain(manifest)
    metadata = raw.get("metadata") or {}
    name = metadata.get("name")
    if not name:
        raise PlanError([f"{raw.get('kind')} without metadata.name: give it a name, other objects refer to it"])
    return Object(raw["kind"], metadata.get("namespace") or "default", name, raw)


def _plain(value: Any) -> Any:
    """Return `value` with Pulumi's secret envelopes opened: a local process needs what is inside."""
    if isinstance(value, Mapping):
        if _SECRET_KEY in value and "value" in value:
            return _plain(value["value"])
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _unknown_paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unknown_paths(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_paths(item, f"{path}[{index}]")
    elif value == UNKNOWN:
        yield path
