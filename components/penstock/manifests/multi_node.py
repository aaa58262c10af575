"""Replicas of several nodes: a LeaderWorkerSet whose groups run one vLLM each, without Ray.

vLLM starts a process per GPU on every node; the nodes meet at the leader's address. Source: vLLM 0.32, `ParallelConfig`
(nnodes, node_rank, master_addr) and `vllm serve --headless`; LeaderWorkerSet v1 (0.10).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._labels import LEADER
from ..errors import ConfigError
from . import accelerators, autoscaling, pod, rdma
from .common import WAIT_FOR, WAIT_TIMEOUT, Manifest, check_range, manifest
from .vllm import gpus, parallel, serve_args

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
    linked = args.get("rdma")
    if linked:
        yield from rdma.check_mode(f"{path}.rdma.mode", linked["mode"])
        yield from rdma.check_rails(f"{path}.rdma.rails", linked.get("rails", 8))
    yield from _machine_problems(args, path)


def _parallel_problems(args: "ModelReplicaSetArgs", path: str, nodes: int) -> Iterator[ConfigError]:
    tensor, pipeline = parallel(args)
    each, world = gpus(args), nodes * gpus(args)
    given = "tensor_parallel" if args.get("tensor_parallel") is not None else "pipeline_parallel"
    if args.get("tensor_parallel") is None and args.get("pipeline_parallel") is None:
        return
    where, value = f"{path}.{given}", tensor if given == "tensor_parallel" else pipeline
    if tensor < 1 or pipeline < 1 or tensor * pipeline != world:
        expected = f"tensor x pipeline parallel sizes of {world}: {nodes} node(s) x {each} GPU(s)"
        yield ConfigError(where, value, expected, f"Use {each} x {nodes}, or change `nodes` or `accelerator.count`")
    elif tensor % each and each % tensor:
        expected = f"a divisor or a multiple of the {each} GPUs of a node"
        yield ConfigError(where, value, expected, "A layer that is shared across an uneven part of a node is slow")


def _machine_problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield what the catalogue of accelerators knows better: whole machines, and as many rails as they have."""
    kind = args.get("accelerator", {}).get("type")
    machines = [
        machine
        for accelerator in accelerators.CATALOGUE.values()
        if accelerator.type == kind
        for machine in accelerator.machines
    ]
    if not machines:
        return
    each = gpus(args)
    if each not in {machine.chips for machine in machines}:
        known = " or ".join(str(chips) for chips in sorted({machine.chips for machine in machines}))
        expected = f"all GPUs of a machine with {kind}: {known}"
        fix = "A replica of several nodes uses whole machines"
        yield ConfigError(f"{path}.accelerator.count", each, expected, fix)
        return
    linked = args.get("rdma")
    nics = max(machine.rdma_nics for machine in machines if machine.chips == each)
    if not linked:
        return
    rails = linked.get("rails", 8)
    if nics == 0:
        yield ConfigError(f"{path}.rdma", linked["mode"], f"a machine with RDMA; none with {kind} has", "Remove it")
    elif linked["mode"] == rdma.ROCE and rails in rdma.RAILS and rails != nics:
        yield ConfigError(f"{path}.rdma.rails", rails, f"the {nics} RDMA NICs of the machine", "Use that number")
