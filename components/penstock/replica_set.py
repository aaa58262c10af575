"""The component `ModelReplicaSet`: one uniform set of vLLM replicas, of one node each or of several."""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from ._apply import apply, child_options
from ._shape import conform
from .errors import raise_if
from .manifests import replica_set as manifests
from .manifests import weights


class Adapter(TypedDict):
    """A LoRA adapter that a replica loads at start."""

    name: str
    """Name that clients use as `model`."""
    source: str
    """Model id on the hub, or absolute path in the container."""


class Accelerator(TypedDict):
    """The GPUs, or the TPU chips, of one node of a replica."""

    type: NotRequired[str]
    """Type as GKE labels its nodes, e.g. `nvidia-l4` or `tpu-v6e-slice`. Default: any node that has the GPUs."""
    count: NotRequired[int]
    """GPUs per node, or all TPU chips of it; more than one means tensor parallelism. Default 1."""


class SecretKey(TypedDict):
    """A key of a Secret in the same namespace."""

    name: str
    """The Secret's name."""
    key: NotRequired[str]
    """The key in it. Default `token`."""


class ReplicaRdma(TypedDict):
    """How the nodes of one replica reach each other over RDMA."""

    mode: str
    """`roce` (interfaces of a `RdmaNetwork`) or `dranet` (a claim on the NICs that GKE manages)."""
    rails: NotRequired[int]
    """RDMA NICs per node in mode `roce`, 4 or 8. Default 8."""


class Weights(TypedDict):
    """Weights in a bucket, read with the replicas' own identity."""

    bucket: str
    """The bucket's name, without `gs://`."""
    path: NotRequired[str]
    """Folder of the model in the bucket. Default: the whole bucket."""
    method: NotRequired[str]
    """`fuse` mounts the folder at `/models`; `streamer` loads straight from the bucket. Default `fuse`."""
    adapters_path: NotRequired[str]
    """Folder of LoRA adapters in the same bucket, mounted at `/adapters`, one folder each. Default: none."""
    project: str
    """Project of the cluster, whose workload identity pool names the replicas' ServiceAccount."""
    project_number: str
    """Number of that project."""
    grant: NotRequired[bool]
    """Whether to give the ServiceAccount read access to the folders. Default true."""


class Autoscaling(TypedDict):
    """Replica count by queue depth. CPU says nothing of a replica that waits for its GPUs."""

    max: int
    """Most replicas."""
    min: NotRequired[int]
    """Fewest replicas; 0 needs `keda`. Default 1."""
    by: NotRequired[str]
    """`hpa` (with the custom metrics adapter) or `keda`. Default `hpa`."""
    queue_length: NotRequired[int]
    """Waiting requests per replica that the autoscaler aims at. Default 5."""
    scale_up_window_s: NotRequired[int]
    """Seconds that demand must last before replicas are added. Default 30."""
    scale_down_window_s: NotRequired[int]
    """Seconds without demand before a replica is removed: weights load slowly. Default 900."""
    scale_up_step: NotRequired[int]
    """Replicas that may be added per minute. Default 2."""
    cooldown_s: NotRequired[int]
    """Seconds without a request before the last replica is removed, where `min` is 0. Default 1800."""
    activation_query: NotRequired[str]
    """PromQL, above 0 when there are requests, to start the first replica. Default: of Penstock's picker."""
    project: NotRequired[str]
    """Project whose metrics `keda` asks. Required with `keda`, unless `prometheus` names a server."""
    cluster: NotRequired[str]
    """Cluster name in `keda`'s queries, where several clusters of one project have a namespace of this name."""
    prometheus: NotRequired[str]
    """URL of another Prometheus server for `keda`. Default: Cloud Monitoring's API."""


class ModelReplicaSetArgs(TypedDict):
    """Arguments of `ModelReplicaSet`."""

    name: str
    """Name of the objects and of the pool that selects the replicas, a DNS label of at most 54 characters."""
    namespace: str
    """Namespace of the pool."""
    model: str
    """Name that clients use as `model`."""
    source: NotRequired[str]
    """Model id on the hub, or absolute path in the container. Exactly one of `source` and `weights`."""
    weights: NotRequired[Weights]
    """Weights in a bucket."""
    replicas: NotRequired[int]
    """Number of replicas. Default 1; refused beside `autoscaling`, which sets it."""
    autoscaling: NotRequired[Autoscaling]
    """Replica count by queue depth. Default: fixed."""
    nodes: NotRequired[int]
    """Nodes that serve one replica together; more than one makes a LeaderWorkerSet. Default 1."""
    tensor_parallel: NotRequired[int]
    """GPUs, or devices of TPUs (two per chip of TPU7x), that share each layer. Default: those of one node."""
    pipeline_parallel: NotRequired[int]
    """Stages of layers. Default: one per node."""
    topology: NotRequired[str]
    """Node label of which all nodes of a replica share the value and no other replica has it, e.g.
    `cloud.google.com/gce-topology-subblock`. Labels of a machine's place need nodes that run: none is added for one."""
    rdma: NotRequired[ReplicaRdma]
    """RDMA between the nodes of a replica. Default: none, NCCL talks over TCP."""
    monitoring: NotRequired[bool]
    """Whether managed Prometheus reads the replicas' metrics. Default: with `autoscaling`."""
    adapters: NotRequired[list[Adapter]]
    """LoRA adapters that every replica loads at start."""
    max_loras: NotRequired[int]
    """Adapters that one batch may mix. Default: as many as there are adapters."""
    max_lora_rank: NotRequired[int]
    """Highest rank of any adapter. Default vLLM's."""
    allow_runtime_lora_updates: NotRequired[bool]
    """Whether adapters may be loaded while replicas run, by a call without authentication. Default false."""
    max_model_len: NotRequired[int]
    """Context length in tokens. Default the model's."""
    extra_args: NotRequired[list[str]]
    """More arguments of `vllm serve`, each `--flag` or `--flag=value`; none that another field sets."""
    accelerator: NotRequired[Accelerator]
    """GPUs, or TPU chips, per node. Default one GPU of any type."""
    node_selector: NotRequired[dict[str, str]]
    """Further node labels to ask for."""
    cpu: NotRequired[str]
    """CPU request per replica. Default `4`."""
    memory: NotRequired[str]
    """Memory request and limit per replica, shared memory included. Default `24Gi`."""
    shared_memory_mib: NotRequired[int]
    """Size of /dev/shm in MiB. Default 2048."""
    cache_gib: NotRequired[int]
    """Room for weights and compiled kernels on the node's disk, in GiB. Default 100."""
    startup_timeout_s: NotRequired[int]
    """Seconds until a replica that loads its weights counts as failed. Default 1800."""
    drain_timeout_s: NotRequired[int]
    """Seconds that open answers have to finish before a replica ends. Default 60."""
    hf_token_secret: NotRequired[SecretKey]
    """Secret with the hub's token, for gated models. The token itself never passes through here."""
    image: pulumi.Input[str]
    """vLLM image, pinned by tag or digest; on TPUs one with vLLM's TPU backend, e.g. of `vllm/vllm-tpu`."""


class ModelReplicaSet(pulumi.ComponentResource):
    """One set of replicas: Deployment or LeaderWorkerSet, identity, disruption budget, autoscaler and monitoring."""

    replica_set_name: pulumi.Output[str]
    """Name of the set: of its workload, and value of the label by which a pool selects it."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""
    pod_security_level = staticmethod(manifests.pod_security_level)
    """Names the strictest Pod Security Standard that the namespace may enforce."""

    def __init__(self, name: str, args: ModelReplicaSetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ModelReplicaSetArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ModelReplicaSet", name, None, opts)

        account = apply(f"{name}-service-account", manifests.account(args), child_options(self))
        grants = [self._grant(name, args, grant) for grant in weights.grants(args)]
        made = manifests.workload(args)
        role = "deployment" if made["kind"] == "Deployment" else "leader-worker-set"
        workload = apply(f"{name}-{role}", made, child_options(self, [account, *grants]))
        apply(f"{name}-budget", manifests.budget(args), child_options(self))
        monitored = manifests.pod_monitoring(args)
        if monitored:
            apply(f"{name}-monitoring", monitored, child_options(self))
        self._autoscaler(name, args, workload)

        self.replica_set_name = pulumi.Output.from_input(args["name"])
        self.register_outputs({"replicaSetName": self.replica_set_name})

    def _grant(self, name: str, args: ModelReplicaSetArgs, grant: weights.Grant) -> pulumi.Resource:
        limited = gcp.storage.BucketIAMMemberConditionArgs(**grant.condition) if grant.condition else None
        return gcp.storage.BucketIAMMember(
            f"{name}-{grant.role}",
            bucket=args["weights"]["bucket"],
            role=grant.roles,
            member=grant.member,
            condition=limited,
            opts=child_options(self),
        )

    def _autoscaler(self, name: str, args: ModelReplicaSetArgs, workload: pulumi.Resource) -> None:
        roles = {"TriggerAuthentication": "trigger-authentication"}
        before = workload
        for made in manifests.autoscaler(args):
            role = roles.get(made["kind"], "autoscaler")
            before = apply(f"{name}-{role}", made, child_options(self, [before]))
