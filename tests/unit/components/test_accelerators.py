"""The catalogue of accelerators is consistent in itself, and with what GKE's labels and arguments know."""

import re

import pytest
from penstock.manifests.accelerators import CATALOGUE, GPU, TPU, by_type, slice_chips
from penstock.manifests.rdma import RAILS, TUNER_CONFIGS
from penstock.manifests.versions import GkeVersion

MACHINES = [(name, machine) for name, item in CATALOGUE.items() for machine in item.machines]
IDS = [machine.machine_type for _, machine in MACHINES]

NEEDED = {"l4", "a100-40", "a100-80", "h100-high", "h100-mega", "h200-ultra", "b200", "gb200"} | {
    "tpu-v5e",
    "tpu-v6e",
    "tpu-v7",
}


def test_a_nodes_label_names_one_accelerator():
    assert all(by_type(item.type) is item for item in CATALOGUE.values())
    assert by_type(None) is None
    assert by_type("nvidia-unheard-of") is None


def test_a_tpus_number_of_chips_names_one_machine():
    """A replica's topology label follows from its chips."""
    for item in CATALOGUE.values():
        if item.kind == TPU:
            assert len({machine.chips for machine in item.machines}) == len(item.machines)


def test_all_accelerators_of_the_architecture_are_there():
    assert set(CATALOGUE) == NEEDED


@pytest.mark.parametrize(("name", "machine"), MACHINES, ids=IDS)
def test_the_name_of_a_machine_says_how_many_chips_it_has(name, machine):
    """Compute Engine's names do, but for G2, whose names count CPUs."""
    found = re.search(r"-(\d+)[gt]$", machine.machine_type)
    if found:
        assert machine.chips == int(found[1])
    else:
        assert machine.machine_type.startswith("g2-standard-")
        assert machine.chips == {24: 2, 48: 4, 96: 8}.get(int(machine.machine_type.rpartition("-")[2]), 1)


@pytest.mark.parametrize(("name", "machine"), MACHINES, ids=IDS)
def test_a_machine_has_what_its_kind_has(name, machine):
    accelerator = CATALOGUE[name]
    assert accelerator.kind in (GPU, TPU)
    assert bool(machine.topologies) == (accelerator.kind == TPU)
    if accelerator.kind == TPU:
        assert (machine.rdma_nics, machine.local_ssds, accelerator.domain) == (0, 0, 0)
    else:
        assert machine.local_ssds > 0
    assert machine.rdma_nics in (0, *RAILS)
    # each GPU has an interface of its own: a rail
    assert machine.rdma_nics in (0, machine.chips)


@pytest.mark.parametrize(("name", "machine"), [item for item in MACHINES if item[1].topologies])
def test_a_slice_is_made_of_whole_machines(name, machine):
    dimensions = {len(topology.split("x")) for topology in machine.topologies}
    assert dimensions == ({3} if name == "tpu-v7" else {2})
    for topology in machine.topologies:
        assert slice_chips(topology) % machine.chips == 0
        assert machine.hosts(topology) >= 1
    assert machine.hosts(machine.topologies[0]) == 1, "the default is one machine"
    if machine.chips != 4:
        assert [machine.hosts(topology) for topology in machine.topologies] == [1]


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_an_accelerator_shows_its_default_machine(name):
    accelerator = CATALOGUE[name]
    first = accelerator.machines[0]
    assert accelerator.machine() is first
    assert accelerator.machine(first.machine_type) is first
    assert accelerator.machine("n2-standard-8") is None
    assert (accelerator.machine_type, accelerator.count) == (first.machine_type, first.chips)
    assert (accelerator.rdma_nics, accelerator.local_ssds) == (first.rdma_nics, first.local_ssds)
    assert not first.spot_or_flex_only, "the default can be had on demand"
    assert accelerator.resource == ("nvidia.com/gpu" if accelerator.kind == GPU else "google.com/tpu")
    assert accelerator.minimum_version is None or GkeVersion.parse(accelerator.minimum_version)
    assert accelerator.memory_gib_per_chip > 0
    assert accelerator.domain == 0 or accelerator.workload_policy


def test_machine_types_and_chip_types_are_named_once():
    assert len(set(IDS)) == len(IDS)
    assert len({item.type for item in CATALOGUE.values()}) == len(CATALOGUE)


def test_machines_with_rdma_are_those_of_the_documentation():
    found = {machine.machine_type: machine.rdma_nics for _, machine in MACHINES if machine.rdma_nics}
    assert found == {"a3-ultragpu-8g": 8, "a4-highgpu-8g": 8, "a4x-highgpu-4g": 4}


def test_tuner_files_are_for_types_of_the_catalogue():
    assert set(TUNER_CONFIGS) <= {item.type for item in CATALOGUE.values() if item.rdma_nics}
