"""Node pools against what is known to go wrong with networks for accelerators, one test per trap."""

import penstock
import pytest

from cli.graph.providers import outputs_of
from cli.graph.recorder import record
from tests.support.arguments import args_of, problems

POOL = "gcp:container/nodePool:NodePool"


def pool_with_network(preview, **changes):
    def program():
        network = penstock.RdmaNetwork("rdma", args_of("RdmaNetwork"))
        args = args_of("AcceleratorPool", rdma="roce", node_networks=network.node_networks, **changes)
        penstock.AcceleratorPool("pool", args)

    graph = record(program, "test", preview=preview, outputs=outputs_of())
    (found,) = (resource for resource in graph.resources if resource.type == POOL)
    return graph, found


@pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])
def test_trap_12_a_pool_in_mode_roce_has_the_networks_and_not_the_managed_profile(preview):
    graph, pool = pool_with_network(preview)
    config = pool.inputs["networkConfig"]
    assert set(config) == {"enablePrivateNodes", "additionalNodeNetworkConfigs"}
    if not preview:
        networks = [item["subnetwork"] for item in config["additionalNodeNetworkConfigs"]]
        assert len(networks) == len(set(networks)) == 9
    subnets = {resource.key for resource in graph.resources if resource.type == "gcp:compute/subnetwork:Subnetwork"}
    assert subnets <= set(pool.dependencies), "nodes come after every rail"


def test_trap_12_a_pool_with_both_is_refused():
    networks = [{"network": f"n{rail}", "subnetwork": f"s{rail}"} for rail in range(9)]
    (error,) = problems("AcceleratorPool", rdma="dranet", node_networks=networks)
    assert error.path == "args.node_networks"
    assert "GKE makes the networks" in error.fix


def test_trap_12_rails_of_another_machine_are_refused():
    with pytest.raises(penstock.ConfigErrors, match="expected 5 interfaces: a gVNIC and 4 rails"):
        pool_with_network(False, accelerator="gb200", reservation={"name": "r"})
