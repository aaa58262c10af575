"""The arguments of the cluster, of its nodes without accelerators, and of their identity.

Keys are the provider's: pulumi-gcp 10.2, `gcp.container.Cluster` and `gcp.container.NodePool`. Knows nothing of Pulumi.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._identity import workload_pool
from .accelerators import CPU_POOL, POOL_LABEL
from .location import gcp_labels

if TYPE_CHECKING:
    from ..cluster import ImageRepository, InferenceClusterArgs

CHANNEL = "REGULAR"
"""GKE's default release channel."""

CPU_MACHINE = "n2-standard-8"
CPU_MIN_NODES = 2
CPU_MAX_NODES = 10
CPU_DISK_GIB = 100

NODE_ROLE = "roles/container.defaultNodeServiceAccount"
"""What a node itself does: write logs and metrics, read resource metadata. Source: GKE, "Use least privilege IAM
service accounts", the least role of nodes."""
IMAGE_ROLE = "roles/artifactregistry.reader"
"""Pull images."""

MONITORING = (
    "SYSTEM_COMPONENTS",
    "DCGM",
    "HPA",
    "POD",
    "DAEMONSET",
    "DEPLOYMENT",
    "STATEFULSET",
    "STORAGE",
    "KUBELET",
    "CADVISOR",
    "JOBSET",
)
MONITORING_MORE = ("APISERVER", "SCHEDULER", "CONTROLLER_MANAGER")
LOGGING = ("SYSTEM_COMPONENTS", "WORKLOADS")
LOGGING_MORE = ("APISERVER", "SCHEDULER", "CONTROLLER_MANAGER", "KCP_CONNECTION", "KCP_SSHD", "KCP_HPA", "KCP_VPA")
"""Components, those on by default and the others. Source: GKE API v1, MonitoringComponentConfig and
LoggingComponentConfig."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""Access scope of nodes: what they may do is decided by IAM alone. Source: GKE, "Access scopes"."""


def cluster_name(args: "InferenceClusterArgs") -> str:
    """Return the cluster's name."""
    return f"{args['name']}-cluster"


def cluster_id(args: "InferenceClusterArgs") -> str:
    """Return the cluster's id, from plain values: a provider that it identifies survives an unknown kubeconfig."""
    return f"projects/{args['project']}/locations/{args['region']}/clusters/{cluster_name(args)}"


def account_id(args: "InferenceClusterArgs") -> str:
    """Return the id of the nodes' service account."""
    return f"{args['name']}-nodes"


def node_account(args: "InferenceClusterArgs") -> str:
    """Return the email of the nodes' service account."""
    return f"{account_id(args)}@{args['project']}.iam.gserviceaccount.com"


def readable_repositories(args: "InferenceClusterArgs") -> Iterator[tuple[str, "ImageRepository"]]:
    """Yield the role in the graph and the repository for each that nodes may read; none: all of the project."""
    for repository in args.get("repositories", []):
        yield f"pull-{repository['location']}-{repository['name']}", repository


def cluster(args: "InferenceClusterArgs") -> dict[str, Any]:
    """Return the cluster's arguments."""
    found: dict[str, Any] = {
        "name": cluster_name(args),
        "project": args["project"],
        "location": args["region"],
        "resource_labels": gcp_labels(args.get("labels")),
        "deletion_protection": args.get("deletion_protection", True),
        "min_master_version": args["min_version"],
        "release_channel": {"channel": args.get("release_channel", CHANNEL)},
        "cost_management_config": {"enabled": True},
        **_nodes(args),
        **_network(args),
        **_control_plane(args),
        **_security(args),
        **_observation(args),
    }
    if args.get("zones"):
        found["node_locations"] = list(args["zones"])
    window = args.get("maintenance_window")
    if window:
        times = {"start_time": window["start"], "end_time": window["end"], "recurrence": window["recurrence"]}
        found["maintenance_policy"] = {"recurring_window": times}
    if args.get("notification_topic") is not None:
        found["notification_config"] = {"pubsub": {"enabled": True, "topic": args["notification_topic"]}}
    return found


def cpu_pool(args: "InferenceClusterArgs", cluster_name: Any) -> dict[str, Any]:
    """Return the arguments of the node pool for all that needs no accelerator."""
    pool = args.get("cpu_pool", {})
    low, high = cpu_nodes(args)
    found: dict[str, Any] = {
        "name": f"{args['name']}-{CPU_POOL}",
        "project": args["project"],
        "location": args["region"],
        "cluster": cluster_name,
        "initial_node_count": 1,
        "autoscaling": {"total_min_node_count": low, "total_max_node_count": high, "location_policy": "BALANCED"},
        "management": {"auto_repair": True, "auto_upgrade": True},
        "upgrade_settings": {"strategy": "SURGE", "max_surge": 1, "max_unavailable": 0},
        "network_config": {"enable_private_nodes": True},
        "node_config": {
            **hardened(node_account(args), secure_boot=True),
            "machine_type": pool.get("machine_type", CPU_MACHINE),
            "disk_size_gb": pool.get("disk_gib", CPU_DISK_GIB),
            "disk_type": "pd-balanced",
            "labels": {POOL_LABEL: CPU_POOL},
            "resource_labels": gcp_labels(args.get("labels")),
        },
    }
    if args.get("zones"):
        found["node_locations"] = list(args["zones"])
    return found


def cpu_nodes(args: "InferenceClusterArgs") -> tuple[int, int]:
    """Return the fewest and the most nodes of the CPU pool, over all zones."""
    pool = args.get("cpu_pool", {})
    return pool.get("min_nodes", CPU_MIN_NODES), pool.get("max_nodes", CPU_MAX_NODES)


def hardened(service_account: Any, *, secure_boot: bool) -> dict[str, Any]:
    """Return what the configuration of every node has in common.

    Pods reach the metadata server through GKE's own, which gives them their own identity and never the node's; the
    kubelet's port without authentication stays closed. Source: GKE, "Harden your cluster's security".
    """
    return {
        "service_account": service_account,
        "oauth_scopes": [SCOPE],
        "image_type": "COS_CONTAINERD",
        "metadata": {"disable-legacy-endpoints": "true"},
        "workload_metadata_config": {"mode": "GKE_METADATA"},
        "shielded_instance_config": {"enable_secure_boot": secure_boot, "enable_integrity_monitoring": True},
        "kubelet_config": {"insecure_kubelet_readonly_port_enabled": "FALSE"},
        "gvnic": {"enabled": True},
    }


def _nodes(args: "InferenceClusterArgs") -> dict[str, Any]:
    """Return what makes the pool that GKE insists on at first, and takes it away again.

    It lives for minutes, with the same identity: a project may have no usable default one.
    """
    return {
        "initial_node_count": 1,
        "remove_default_node_pool": True,
        "node_config": hardened(node_account(args), secure_boot=True),
        "node_pool_defaults": {"node_config_defaults": {"insecure_kubelet_readonly_port_enabled": "FALSE"}},
    }


def _network(args: "InferenceClusterArgs") -> dict[str, Any]:
    return {
        "network": args["network"],
        "subnetwork": args["subnetwork"],
        "networking_mode": "VPC_NATIVE",
        "ip_allocation_policy": {
            "cluster_secondary_range_name": args["pods_range"],
            "services_secondary_range_name": args["services_range"],
        },
        "datapath_provider": "ADVANCED_DATAPATH",
        "enable_intranode_visibility": True,
        "enable_multi_networking": args.get("multi_networking", False),
        "enable_fqdn_network_policy": args.get("fqdn_network_policy", True),
        "gateway_api_config": {"channel": "CHANNEL_STANDARD"},
        "private_cluster_config": {"enable_private_nodes": True},
        "addons_config": {
            "http_load_balancing": {"disabled": False},
            "horizontal_pod_autoscaling": {"disabled": False},
            "dns_cache_config": {"enabled": True},
            "gce_persistent_disk_csi_driver_config": {"enabled": True},
            "gcs_fuse_csi_driver_config": {"enabled": args.get("gcs_fuse", True)},
        },
        "pod_autoscaling": {"hpa_profile": "PERFORMANCE"},
    }


def _control_plane(args: "InferenceClusterArgs") -> dict[str, Any]:
    """Return how the control plane is reached: by its DNS endpoint, where IAM decides, without certificates."""
    found: dict[str, Any] = {
        "control_plane_endpoints_config": {
            "dns_endpoint_config": {
                "allow_external_traffic": args.get("dns_endpoint_external", True),
                "enable_k8s_tokens_via_dns": False,
                "enable_k8s_certs_via_dns": False,
            },
            "ip_endpoints_config": {"enabled": args.get("ip_endpoint", False)},
        },
        "master_auth": {"client_certificate_config": {"issue_client_certificate": False}},
    }
    if args.get("ip_endpoint"):
        networks = args.get("authorized_networks", [])
        blocks = [{"cidr_block": item["cidr"], "display_name": item.get("name", item["cidr"])} for item in networks]
        found["master_authorized_networks_config"] = {"cidr_blocks": blocks}
    return found


def _security(args: "InferenceClusterArgs") -> dict[str, Any]:
    enforced = args.get("binary_authorization", True)
    found: dict[str, Any] = {
        "workload_identity_config": {"workload_pool": workload_pool(args["project"])},
        "binary_authorization": {"evaluation_mode": "PROJECT_SINGLETON_POLICY_ENFORCE" if enforced else "DISABLED"},
        "enable_shielded_nodes": True,
        "enable_legacy_abac": False,
        "security_posture_config": {"mode": "BASIC"},
        "secret_manager_config": {"enabled": args.get("secret_manager", True)},
        "rbac_binding_config": {
            "enable_insecure_binding_system_authenticated": False,
            "enable_insecure_binding_system_unauthenticated": False,
        },
        "anonymous_authentication_config": {"mode": "LIMITED"},
    }
    if args.get("kms_key") is not None:
        found["database_encryption"] = {"state": "ENCRYPTED", "key_name": args["kms_key"]}
    return found


def _observation(args: "InferenceClusterArgs") -> dict[str, Any]:
    return {
        "logging_config": {"enable_components": list(args.get("logging_components", LOGGING))},
        "monitoring_config": {
            "enable_components": list(args.get("monitoring_components", MONITORING)),
            "managed_prometheus": {"enabled": True},
        },
    }
