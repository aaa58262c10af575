"""Replicas of several nodes: a LeaderWorkerSet whose groups run one vLLM each, without Ray.

vLLM starts a process per GPU on every node; the nodes meet at the leader's address. Source: vLLM 0.32, `ParallelConfig`
(nnodes, node_rank, master_addr) and `vllm serve --headless`; LeaderWorkerSet v1 (0.10).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._labels import LEADER
from ..errors import ConfigError
from . import autoscaling, chips, pod, rdma
from .common import WAIT_FOR, WAIT_TIMEOUT, Manifest, check_range, manifest
from .vllm import parallel, serve_args

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

API = "leaderworkerset.x-k8s.io/v1"
KIND = "LeaderWorkerSet"
EXCLUSIVE_TOPOLOGY = "leaderworkerset.sigs.k8s.io/exclusive-topology"
"""Annotation: each group has one value of this node label, and no other group has it. Source: LeaderWorkerSet 0.10."""

NODES_MAX = 64

_MEET = ("--distributed-executor-backend=mp", "--nnodes=$(LWS_GROUP_SIZE)", "--master-addr=$(LWS_LEADER_ADDRESS)")
"""The controller puts these variables into every container of a group; Kubernetes expands them in arguments."""

_ENV: tuple[Manifest, ...] = (
    {"name": "VLLM_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"},
    {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"},
)
"""Nodes with RDMA have ten interfaces; rendezvous and control go over the pod's first one, as its address says."""


def leader_worker_set(args: "ModelReplicaSetArgs", tags: dict[str, str], await_s: int) -> Manifest:
    """Return the LeaderWorkerSet.

    A group is replaced as a whole, one at a time and without a surge: when one of its pods goes, the others wait for
    processes that are gone. Workers start with their leader (`LeaderCreated`), since a leader is ready only when all of
    its workers have loaded their part.
    """
    name = args["name"]
    leader = pod.template(args, tags | {LEADER: "true"}, serve_args(args, *_MEET, "--node-rank=0"), extra_env=_ENV)
    flags = serve_args(args, *_MEET, "--node-rank=$(LWS_WORKER_INDEX)", "--headless")
    spec: Manifest = {
        "startupPolicy": "LeaderCreated",
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
        },
        "leaderWorkerTemplate": {
            "size": args["nodes"],
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": leader,
            "workerTemplate": pod.template(args, tags, flags, serves=False, extra_env=_ENV),
        },
    }
    if not args.get("autoscaling"):
        spec = {"replicas": args.get("replicas", 1)} | spec
    notes = {WAIT_TIMEOUT: str(await_s)}
    if autoscaling.fewest(args) > 0:
        notes[WAIT_FOR] = "condition=Available"
    if args.get("topology"):
        notes[EXCLUSIVE_TOPOLOGY] = args["topology"]
    return manifest(API, KIND, name, args["namespace"], tags, annotations=notes, spec=spec)


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the nodes of a replica cannot work together."""
    nodes = args.get("nodes", 1)
    yield from check_range(f"{path}.nodes", nodes, 1, NODES_MAX, "nodes")
    yield from _parallel_problems(args, path, nodes)
    if nodes == 1:
        for field, value in (("topology", args.get("topology")), ("rdma", args.get("rdma"))):
            if value is not None:
                yield ConfigError(f"{path}.{field}", value, "`nodes` of more than 1", "Remove it, or raise `nodes`")
        return
    if chips.tpu(args):
        return  # refused with its accelerators
    linked = args.get("rdma")
    if linked:
        yield from rdma.check_mode(f"{path}.rdma.mode", linked["mode"])
        yield from rdma.check_rails(f"{path}.rdma.rails", linked.get("rails", 8))
    yield from _machine_problems(args, path)


def _parallel_problems(args: "ModelReplicaSetArgs", path: str, nodes: int) -> Iterator[ConfigError]:
    tensor, pipeline = parallel(args)
    each, world = chips.devices(args), nodes * chips.devices(args)
    what = "TPU device" if chips.tpu(args) else "GPU"
    given = "tensor_parallel" if args.get("tensor_parallel") is not None else "pipeline_parallel"
    if args.get("tensor_parallel") is None and args.get("pipeline_parallel") is None:
        return
    where, value = f"{path}.{given}", tensor if given == "tensor_parallel" else pipeline
    if tensor < 1 or pipeline < 1 or tensor * pipeline != world:
        expected = f"tensor x pipeline parallel sizes of {world}: {nodes} node(s) x {each} {what}(s)"
        yield ConfigError(where, value, expected, f"Use {each} x {nodes}, or change `nodes` or `accelerator.count`")
    elif tensor % each and each % tensor:
        expected = f"a divisor or a multiple of the {each} {what}s of a node"
        yield ConfigError(where, value, expected, "A layer that is shared across an uneven part of a node is slow")


def _machine_problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield what the catalogue of accelerators knows better: as many rails as the machines have."""
    linked, machine = args.get("rdma"), chips.machine(args)
    if not linked or machine is None:
        return
    rails, nics = linked.get("rails", 8), machine.rdma_nics
    if nics == 0:
        expected = f"a machine with RDMA; none with {args['accelerator'].get('type')} has"
        yield ConfigError(f"{path}.rdma", linked["mode"], expected, "Remove it")
    elif linked["mode"] == rdma.ROCE and rails in rdma.RAILS and rails != nics:
        yield ConfigError(f"{path}.rdma.rails", rails, f"the {nics} RDMA NICs of the machine", "Use that number")
