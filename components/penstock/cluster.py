"""The component `InferenceCluster`: a private GKE cluster, its node identity and its nodes without accelerators."""

from typing import TYPE_CHECKING, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as k8s

from ._apply import child_options
from ._shape import conform
from .errors import raise_if
from .manifests import cluster as manifests
from .manifests import cluster_checks
from .manifests.kubeconfig import kubeconfig_text

if TYPE_CHECKING:  # the SDK's modules are large and imported when they are used
    _Endpoints = gcp.container.outputs.ClusterControlPlaneEndpointsConfig


class AuthorizedNetwork(TypedDict):
    """A range that may reach the control plane's IP endpoint."""

    cidr: str
    """IPv4 range, e.g. `203.0.113.0/24`."""
    name: NotRequired[str]
    """What the console shows. Default the range."""


class CpuPool(TypedDict):
    """Nodes without accelerators: callouts, pickers, operators, and GKE's own pods."""

    machine_type: NotRequired[str]
    """Compute Engine machine type. Default `n2-standard-8`."""
    min_nodes: NotRequired[int]
    """Fewest nodes, over all zones. Default 2."""
    max_nodes: NotRequired[int]
    """Most nodes, over all zones. Default 10."""
    disk_gib: NotRequired[int]
    """Boot disk of a node in GiB. Default 100."""


class MaintenanceWindow(TypedDict):
    """When GKE may upgrade control plane and nodes. GKE wants at least 48 hours in 32 days."""

    start: str
    """First time that the window opens, RFC 3339, e.g. `2026-01-03T01:00:00Z`."""
    end: str
    """First time that it closes, RFC 3339."""
    recurrence: str
    """How it repeats, RFC 5545, e.g. `FREQ=WEEKLY;BYDAY=SA,SU`."""


class ImageRepository(TypedDict):
    """An Artifact Registry repository that nodes pull images from."""

    location: str
    """Its location, e.g. `us-central1` or `us`."""
    name: str
    """Its name."""
    project: NotRequired[str]
    """Its project. Default the cluster's."""


class InferenceClusterArgs(TypedDict):
    """Arguments of `InferenceCluster`."""

    name: str
    """Base name, at most 24 characters: the cluster is `<name>-cluster`, the nodes' service account `<name>-nodes`."""
    project: str
    """Project id."""
    region: str
    """Region of the control plane, which is spread over its zones."""
    zones: NotRequired[list[str]]
    """Zones of the nodes. Default: GKE chooses three."""
    min_version: str
    """Oldest GKE version of control plane and nodes, e.g. `1.35.2-gke.1842000`; GKE upgrades from there."""
    features: NotRequired[list[str]]
    """What the cluster is wanted for, by the names of `manifests.versions.FEATURES`; checked against `min_version`."""
    accelerators: NotRequired[list[str]]
    """Accelerators of the pools to come, by the catalogue's names; checked against `min_version`."""
    release_channel: NotRequired[str]
    """`RAPID`, `REGULAR`, `STABLE` or `EXTENDED`. Default `REGULAR`."""
    dns_endpoint_external: NotRequired[bool]
    """Whether the control plane's DNS endpoint answers outside the VPC, to whom IAM allows it. Default true."""
    ip_endpoint: NotRequired[bool]
    """Whether the control plane has an IP endpoint too. Default false; needs `authorized_networks`."""
    authorized_networks: NotRequired[list[AuthorizedNetwork]]
    """Who may reach the IP endpoint."""
    multi_networking: NotRequired[bool]
    """Whether nodes and pods may have further interfaces, which RDMA mode `roce` needs. Default false; changing it
    replaces the cluster."""
    fqdn_network_policy: NotRequired[bool]
    """Whether FQDNNetworkPolicy objects work. Default true."""
    gcs_fuse: NotRequired[bool]
    """Whether pods may mount buckets. Default true."""
    secret_manager: NotRequired[bool]
    """Whether pods may mount secrets of Secret Manager. Default true."""
    binary_authorization: NotRequired[bool]
    """Whether the project's Binary Authorization policy is enforced. Default true."""
    monitoring_components: NotRequired[list[str]]
    """Whose metrics GKE collects, by GKE's names. Default system, DCGM (GPUs) and the kube-state and kubelet sets."""
    logging_components: NotRequired[list[str]]
    """Whose logs GKE collects. Default `SYSTEM_COMPONENTS` and `WORKLOADS`."""
    maintenance_window: NotRequired[MaintenanceWindow]
    """When GKE may upgrade. Default any time."""
    deletion_protection: NotRequired[bool]
    """Whether a destroy of the cluster is refused until this is turned off. Default true."""
    cpu_pool: NotRequired[CpuPool]
    """The nodes without accelerators."""
    repositories: NotRequired[list[ImageRepository]]
    """Repositories that nodes may read. Default: every one of the project."""
    labels: NotRequired[dict[str, str]]
    """Labels of the cluster and its nodes in Google Cloud, for cost reports among others."""
    network: pulumi.Input[str]
    """VPC: URI or name."""
    subnetwork: pulumi.Input[str]
    """Subnet of the nodes: URI or name."""
    pods_range: pulumi.Input[str]
    """Name of the subnet's secondary range for pods."""
    services_range: pulumi.Input[str]
    """Name of the subnet's secondary range for Services."""
    kms_key: NotRequired[pulumi.Input[str]]
    """Cloud KMS key that encrypts the control plane's database too. GKE's service agent must be allowed to use it."""
    notification_topic: NotRequired[pulumi.Input[str]]
    """Pub/Sub topic, `projects/P/topics/T`, that hears of upgrades and security bulletins."""


class InferenceCluster(pulumi.ComponentResource):
    """The cluster, the identity of its nodes, its nodes without accelerators, and a Kubernetes provider for it."""

    cluster_name: pulumi.Output[str]
    """Name of the cluster; known to be usable once it has nodes without accelerators."""
    cluster_id: pulumi.Output[str]
    """`projects/P/locations/L/clusters/C`."""
    endpoint: pulumi.Output[str]
    """Host name of the control plane's DNS endpoint."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig that asks `gke-gcloud-auth-plugin` for tokens: no key in it, secret all the same."""
    node_service_account: pulumi.Output[str]
    """Email of the nodes' service account."""

    problems = staticmethod(cluster_checks.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""
    name_of = staticmethod(manifests.cluster_name)
    """Names the cluster, by the arguments alone."""
    id_of = staticmethod(manifests.cluster_id)
    """Returns the cluster's id, by the arguments alone: what `cluster_identifier` of a provider needs."""

    def __init__(self, name: str, args: InferenceClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(InferenceClusterArgs, args, name)
        raise_if(cluster_checks.problems(args, name))
        super().__init__("penstock:index:InferenceCluster", name, None, opts)

        identity = self._identity(name, args)
        # `nodeConfig` is that of a pool which is gone; counts and versions are moved on by GKE itself
        cluster_opts = pulumi.ResourceOptions(ignore_changes=["initialNodeCount", "nodeConfig"])
        cluster = gcp.container.Cluster(
            f"{name}-cluster",
            **manifests.cluster(args),
            opts=pulumi.ResourceOptions.merge(child_options(self, identity), cluster_opts),
        )
        pool_opts = pulumi.ResourceOptions(ignore_changes=["initialNodeCount"])
        cpu_pool = gcp.container.NodePool(
            f"{name}-cpu",
            **manifests.cpu_pool(args, cluster.name),
            opts=pulumi.ResourceOptions.merge(child_options(self, identity), pool_opts),
        )

        # Whoever takes the name waits for the nodes too: GKE taints nodes with GPUs only beside others
        self.cluster_name = pulumi.Output.all(cluster.name, cpu_pool.name).apply(lambda names: str(names[0]))
        self.cluster_id = pulumi.Output.from_input(manifests.cluster_id(args))
        self.endpoint = _endpoint(cluster)
        text = self.endpoint.apply(lambda endpoint: kubeconfig_text(manifests.cluster_name(args), endpoint))
        self.kubeconfig = pulumi.Output.secret(text)
        self.node_service_account = pulumi.Output.from_input(manifests.node_account(args))
        self._kubernetes = kubernetes_provider(
            f"{name}-kubernetes", self.kubeconfig, manifests.cluster_id(args), child_options(self, [cpu_pool])
        )
        self.register_outputs(
            {
                "clusterName": self.cluster_name,
                "clusterId": self.cluster_id,
                "endpoint": self.endpoint,
                "kubeconfig": self.kubeconfig,
                "nodeServiceAccount": self.node_service_account,
            }
        )

    def provider(self) -> k8s.Provider:
        """Return a provider for the cluster: give it to components as `opts.providers`."""
        return self._kubernetes

    def _identity(self, name: str, args: InferenceClusterArgs) -> list[pulumi.Resource]:
        """Register the nodes' service account and what it may do; return what must exist before a node does."""
        account = gcp.serviceaccount.Account(
            f"{name}-nodes",
            account_id=manifests.account_id(args),
            display_name=f"Nodes of {manifests.cluster_name(args)}",
            project=args["project"],
            opts=child_options(self),
        )
        member = f"serviceAccount:{manifests.node_account(args)}"
        roles = {"node-role": manifests.NODE_ROLE}
        if not args.get("repositories"):
            roles["pull"] = manifests.IMAGE_ROLE
        bindings: list[pulumi.Resource] = [
            gcp.projects.IAMMember(
                f"{name}-{child}",
                project=args["project"],
                role=role,
                member=member,
                opts=child_options(self, [account]),
            )
            for child, role in roles.items()
        ]
        bindings += [
            gcp.artifactregistry.RepositoryIamMember(
                f"{name}-{child}",
                project=repository.get("project", args["project"]),
                location=repository["location"],
                repository=repository["name"],
                role=manifests.IMAGE_ROLE,
                member=member,
                opts=child_options(self, [account]),
            )
            for child, repository in manifests.readable_repositories(args)
        ]
        return [account, *bindings]


def kubernetes_provider(
    name: str, kubeconfig: pulumi.Input[str], cluster_id: str, opts: pulumi.ResourceOptions | None = None
) -> k8s.Provider:
    """Return a Kubernetes provider for a cluster, of this stack or of another one.

    Args:
        name: logical name.
        kubeconfig: output `kubeconfig` of `InferenceCluster`.
        cluster_id: its output `cluster_id`, as a plain value: with it the provider knows that the cluster is the same
            while its kubeconfig is unknown, where every object would otherwise be replaced. Source: pulumi-kubernetes
            4.34, `DiffConfig`.
        opts: options of the resource.

    ConfigMaps change in place, as callouts that reload them need it; by default the provider would delete a ConfigMap
    whose data changes before it makes it anew. Source: pulumi-kubernetes 4.34, `enableConfigMapMutable`.
    """
    return k8s.Provider(
        name, kubeconfig=kubeconfig, cluster_identifier=cluster_id, enable_config_map_mutable=True, opts=opts
    )


def _endpoint(cluster: "gcp.container.Cluster") -> pulumi.Output[str]:
    """Return the host name of the DNS endpoint; before there is a cluster it is unknown rather than missing."""
    configs: pulumi.Output[_Endpoints] = cluster.id.apply(lambda _: cluster.control_plane_endpoints_config)
    return configs.apply(_dns_endpoint)


def _dns_endpoint(config: "_Endpoints") -> str:
    """Return the endpoint's host name, which every cluster has that asks for it; programs under mocks have none."""
    return (config.dns_endpoint_config and config.dns_endpoint_config.endpoint) or ""
