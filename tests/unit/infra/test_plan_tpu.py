"""What a pool of TPUs says of the replica sets that choose it, and which pools they cannot have."""

import pytest

from infra import plan
from tests.unit.infra.test_plan import PROD, args_of, changed, refusals

POOL = {"pool": "v6e", "accelerator": "tpu-v6e", "zones": ["us-central1-b"], "maxNodes": 4}
GEMMA = "models.1.replicaSets.0"


def tpus(pool=None, **own):
    """Return changes to production's settings that put one replica set on TPUs."""
    pools = [*PROD["acceleratorPools"], POOL | (pool or {})]
    return {"acceleratorPools": pools, f"{GEMMA}.pool": "v6e"} | {f"{GEMMA}.{key}": value for key, value in own.items()}


@pytest.mark.parametrize(
    ("pool", "accelerator"),
    [
        ({}, {"type": "tpu-v6e-slice", "count": 4}),
        ({"machineType": "ct6e-standard-8t"}, {"type": "tpu-v6e-slice", "count": 8}),
        ({"accelerator": "tpu-v7"}, {"type": "tpu7x", "count": 4}),
    ],
)
def test_a_pool_says_which_tpus_its_replica_sets_have(pool, accelerator):
    _, made = plan.load(changed(PROD, tpus(pool)))
    found = args_of(made.replica_sets)["gemma-3-12b-a"]
    assert found["accelerator"] == accelerator
    assert found["node_selector"] == {"penstock.dev/pool": "v6e"}
    assert "rdma" not in found


def test_a_slice_of_several_machines_serves_no_replica_set():
    error = refusals(PROD, tpus({"topology": "4x4", "maxNodes": 4}))[f"{path(GEMMA)}.pool"]
    assert "one-machine slices" in error.expected
    assert "have 4" in error.expected
    assert "topology 2x2" in error.fix


def test_a_replica_takes_all_chips_of_its_node():
    accelerator = {"type": "tpu-v6e-slice", "count": 1}
    error = refusals(PROD, tpus(accelerator=accelerator))[f"{path(GEMMA)}.accelerator.count"]
    assert "all chips of a node of `v6e`" in error.expected
    assert "Leave `accelerator` out" in error.fix


def test_the_namespace_admits_what_the_replicas_need_and_no_more():
    def level(raw):
        return plan.load(raw)[1].gateway.args.get("pod_security")

    assert level(PROD) == "privileged"  # RDMA
    one_node = {"models.0.replicaSets.0.nodes": ...}
    assert level(changed(PROD, one_node)) is None
    assert level(changed(PROD, one_node | tpus())) == "baseline"


def path(dotted):
    name, at, sets, number = dotted.split(".")
    return f"{name}[{at}].{sets}[{number}]"
