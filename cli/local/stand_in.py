"""What runs here in the place of programs that cannot: upstream's picker, and the other nodes of a replica."""

from collections.abc import Mapping, Sequence

from cli.local.engines import without_flags
from cli.local.model import LOOPBACK
from cli.local.objects import LEADER_WORKER_SET, Object

_PICKER_FLAGS = {
    "--config-file": "--config-file",
    "--grpc-port": "--grpc-port",
    "--grpc-health-port": "--health-port",
    "--metrics-port": "--metrics-port",
    "--pool-name": "--pool-name",
    "--pool-namespace": "--pool-namespace",
}
"""Flags of upstream's picker and of Penstock's. Source: Gateway API Inference Extension 1.5, llm-d-router 0.10."""

_NODE_FLAGS = (
    "--distributed-executor-backend",
    "--nnodes",
    "--node-rank",
    "--master-addr",
    "--master-port",
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
)
_NODE_VARIABLES = ("GLOO_", "NCCL_", "LD_LIBRARY_PATH", "VLLM_HOST_IP")
"""What tells vLLM of the other nodes, and of the network between them. Source: vLLM 0.32."""


def is_upstream_picker(argv: Sequence[str]) -> bool:
    """Tell whether these are arguments of upstream's picker, whose image has an entrypoint of its own."""
    return bool(argv) and argv[0].startswith("--") and any(arg.startswith("--pool-group") for arg in argv)


def picker_command(python: str, argv: Sequence[str]) -> list[str]:
    """Return the command of Penstock's picker with what upstream's was told: same configuration, pool and ports."""
    command = [python, "-m", "services.picker", f"--address={LOOPBACK}"]
    for index, arg in enumerate(argv):
        flag, equals, value = arg.partition("=")
        if flag in _PICKER_FLAGS:
            command.append(f"{_PICKER_FLAGS[flag]}={value if equals else argv[index + 1]}")
    return [*command, "--replicas=kubernetes"]


def group_variables(workload: Object) -> dict[str, str]:
    """Return what the controller of a LeaderWorkerSet would put into the leader's environment."""
    if workload.kind != LEADER_WORKER_SET:
        return {}
    size = workload.spec["leaderWorkerTemplate"].get("size", 1)
    return {"LWS_LEADER_ADDRESS": LOOPBACK, "LWS_GROUP_SIZE": str(size), "LWS_WORKER_INDEX": "0"}


def alone(workload: Object, argv: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return arguments and environment of a leader that serves without its workers; of others as they are."""
    if workload.kind != LEADER_WORKER_SET:
        return list(argv), dict(env)
    kept = {name: value for name, value in env.items() if not name.startswith(_NODE_VARIABLES)}
    return without_flags(argv, _NODE_FLAGS), kept
