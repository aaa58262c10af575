"""The component `ClusterAddons`: controllers and APIs that GKE does not bring and a chosen feature needs."""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as k8s

from ._apply import apply, child_options
from ._identity import principal
from ._shape import conform
from .errors import raise_if
from .manifests import addons as manifests
from .manifests import inference_crds, metrics_adapter


class ClusterAddonsArgs(TypedDict):
    """Arguments of `ClusterAddons`. Everything is off by default."""

    leader_worker_set: NotRequired[bool]
    """Whether the LeaderWorkerSet controller is installed: replicas that span nodes need it."""
    leader_worker_set_version: NotRequired[str]
    """Version of its chart. Default 0.10.0."""
    keda: NotRequired[bool]
    """Whether KEDA is installed: autoscaling to zero needs it."""
    keda_version: NotRequired[str]
    """Version of its chart. Default 2.20.2."""
    keda_namespace: NotRequired[str]
    """The one namespace whose ScaledObjects KEDA acts on. Default: all."""
    custom_metrics: NotRequired[bool]
    """Whether Cloud Monitoring's metrics adapter is installed: autoscaling by HorizontalPodAutoscaler needs it. Beside
    KEDA it serves metrics of pods only, since a cluster has one server of external metrics."""
    custom_metrics_image: NotRequired[str]
    """Image of the adapter, pinned. Default v0.15.1-gke.0."""
    objective_apis: NotRequired[list[str]]
    """Picker APIs, as of `InferencePool.objective_api`, whose kinds InferenceObjective and InferenceModelRewrite are
    defined. Leave out what the cluster has already."""
    project: NotRequired[str]
    """Project of the cluster, whose metrics are read. Needed for `keda` and `custom_metrics`."""
    project_number: NotRequired[str]
    """Its number. Needed for the same."""


class ClusterAddons(pulumi.ComponentResource):
    """Helm releases, the metrics adapter and definitions, with the rights that they need and no more.

    `opts` gives the Kubernetes provider. What uses an addon depends on this component.
    """

    namespaces: pulumi.Output[list[str]]
    """Namespaces that are made for addons."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ClusterAddonsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ClusterAddonsArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ClusterAddons", name, None, opts)
        self._args, self._name = args, name
        made: list[str] = []

        if args.get("leader_worker_set"):
            made.append(self._release(manifests.leader_worker_set(args)))
        if args.get("keda"):
            made.append(self._release(manifests.keda(args)))
            self._may_read_metrics("keda", "keda", manifests.KEDA_ACCOUNT)
        if args.get("custom_metrics"):
            made.append(self._declare_adapter())
        for api in args.get("objective_apis", []):
            for definition in inference_crds.definitions(manifests.objective_group(api)):
                apply(f"{name}-{definition['metadata']['name']}", definition, child_options(self))

        self.namespaces = pulumi.Output.from_input(made)
        self.register_outputs({"namespaces": self.namespaces})

    def _release(self, chart: manifests.Chart) -> str:
        """Declare the release, awaited; its namespace admits what the "baseline" Pod Security Standard does."""
        space = self._namespace(chart.namespace, "baseline")
        k8s.helm.v3.Release(
            f"{self._name}-{chart.name}",
            name=chart.name,
            namespace=chart.namespace,
            chart=chart.chart,
            version=chart.version,
            repository_opts=k8s.helm.v3.RepositoryOptsArgs(repo=chart.repository) if chart.repository else None,
            values=dict(chart.values),
            atomic=True,
            timeout=600,
            opts=child_options(self, [space]),
        )
        return chart.namespace

    def _declare_adapter(self) -> str:
        space = self._namespace(metrics_adapter.NAMESPACE, "restricted")
        external = not self._args.get("keda", False)
        before: list[pulumi.Resource] = [space]
        for role, item in metrics_adapter.objects(self._args.get("custom_metrics_image"), external):
            found = apply(f"{self._name}-metrics-{role}", item, child_options(self, list(before)))
            if role in ("deployment", "service"):
                before.append(found)  # an API that nothing serves makes every API discovery fail
        self._may_read_metrics("metrics", metrics_adapter.NAMESPACE, metrics_adapter.NAME)
        return metrics_adapter.NAMESPACE

    def _namespace(self, name: str, level: str) -> pulumi.CustomResource:
        return apply(f"{self._name}-{name}-namespace", manifests.namespace(name, level), child_options(self))

    def _may_read_metrics(self, role: str, namespace: str, account: str) -> None:
        gcp.projects.IAMMember(
            f"{self._name}-{role}-viewer",
            project=self._args["project"],
            role=metrics_adapter.ROLE,
            member=principal(self._args["project"], self._args["project_number"], namespace, account),
            opts=child_options(self),
        )
