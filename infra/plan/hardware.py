"""Whether models fit the nodes that they are put on: pools, accelerators, RDMA, zones."""

from collections.abc import Iterator
from typing import Any

from penstock import ConfigError
from penstock.errors import did_you_mean
from penstock.manifests import rdma
from penstock.manifests.accelerators import CATALOGUE, TPU

from infra.settings import Settings

_MACHINE_PLACE = "cloud.google.com/gce-topology-"
"""Labels of the place of a node's machine: block, subblock, host. Source: GKE, "Use topology-aware scheduling"."""


def problems(settings: Settings) -> Iterator[ConfigError]:
    """Yield every reason why node pools do not fit together, or replica sets do not fit their pool."""
    yield from _zone_problems(settings)
    yield from _pool_problems(settings)
    for at, model in enumerate(settings["models"]):
        for number, own in enumerate(model["replica_sets"]):
            chosen = own.get("pool", model.get("pool"))
            if chosen is not None:
                path = f"models[{at}].replicaSets[{number}]"
                named = f"{path if 'pool' in own else f'models[{at}]'}.pool"
                yield from _set_problems(settings, chosen, {**model, **own}, path, named)


def _zone_problems(settings: Settings) -> Iterator[ConfigError]:
    region = settings.get("region")
    places = [(f"zones[{at}]", zone) for at, zone in enumerate(settings["zones"])]
    if "rdma" in settings and "zone" in settings["rdma"]:
        places.append(("rdma.zone", settings["rdma"]["zone"]))
    for path, zone in places:
        if region is not None and not zone.startswith(f"{region}-"):
            yield ConfigError(path, zone, f"a zone of the region {region}", f"Write it like `{region}-a`")


def _pool_problems(settings: Settings) -> Iterator[ConfigError]:
    seen: set[str] = set()
    shared = settings.get("rdma")
    for at, pool in enumerate(settings["accelerator_pools"]):
        path = f"acceleratorPools[{at}]"
        if pool["pool"] in seen:
            yield ConfigError(f"{path}.pool", pool["pool"], "a name of its own", "Rename one of them")
        seen.add(pool["pool"])
        mode = pool.get("rdma")
        if mode is None:
            continue
        if shared is None or shared["mode"] != mode:
            expected = f"`{shared['mode']}`, as `rdma.mode` says" if shared else "`rdma`, which says how"
            yield ConfigError(f"{path}.rdma", mode, expected, "Make both the same: a cluster is set up for one mode")
        elif mode == rdma.ROCE:
            yield from _roce_problems(settings, pool, path)


def _roce_problems(settings: Settings, pool: Any, path: str) -> Iterator[ConfigError]:
    """Check that the networks between nodes are made for this pool: in its zone, one for each interface."""
    shared: Any = settings.get("rdma", {})
    zones = pool.get("zones", settings["zones"])
    if zones != [shared.get("zone")]:
        expected = f"[{shared.get('zone')}], the one zone that `rdma` makes networks for"
        yield ConfigError(f"{path}.zones", zones, expected, "Put the pool into that zone alone")
    machine = _machine(pool)
    if machine is not None and machine.rdma_nics != shared.get("rails"):
        expected = f"{machine.rdma_nics}, the RDMA interfaces of {machine.machine_type} in {path}"
        yield ConfigError("rdma.rails", shared.get("rails"), expected, "Change it, or the pool's machines")


def _set_problems(
    settings: Settings, chosen: str, both: dict[str, Any], path: str, named: str
) -> Iterator[ConfigError]:
    pools = {pool["pool"]: pool for pool in settings["accelerator_pools"]}
    if chosen not in pools:
        yield ConfigError(named, chosen, "one of `acceleratorPools`", did_you_mean(chosen, pools))
        return
    pool = pools[chosen]
    accelerator, machine = CATALOGUE.get(pool["accelerator"]), _machine(pool)
    if accelerator is None or machine is None:
        return  # reported at the pool
    wanted = both.get("accelerator", {})
    if wanted.get("type", accelerator.type) != accelerator.type:
        expected = f"`{accelerator.type}`, which the nodes of `{chosen}` have"
        yield ConfigError(f"{path}.accelerator.type", wanted["type"], expected, "Leave it out, or choose another pool")
    if wanted.get("count", 1) > machine.chips:
        expected = f"at most {machine.chips}, what a node of `{chosen}` has"
        yield ConfigError(f"{path}.accelerator.count", wanted["count"], expected, "Use `nodes` for more")
    if accelerator.kind == TPU:
        yield from _slice_problems(pool, machine, wanted.get("count"), path, named)
    most = pool.get("nodes", pool.get("max_nodes"))
    nodes = both.get("nodes", 1)
    if most is not None and nodes > most:
        expected = f"at most {most}, what `{chosen}` may grow to"
        yield ConfigError(f"{path}.nodes", nodes, expected, "Raise `maxNodes` of the pool")
    yield from _topology_problems(pool, both, path)
    mode = both.get("rdma", {}).get("mode")
    if mode is not None and mode != pool.get("rdma"):
        expected = (
            f"`{pool.get('rdma')}`, as its pool `{chosen}`" if "rdma" in pool else f"`rdma` at the pool `{chosen}`"
        )
        yield ConfigError(f"{path}.rdma.mode", mode, expected, "Leave `rdma` out here: the pool says it")


def _topology_problems(pool: Any, both: dict[str, Any], path: str) -> Iterator[ConfigError]:
    """Check that nodes stay where replicas are kept together by where machines stand.

    Only machines that run have these labels: a pod that asks for one fits no node that an autoscaler could still add.
    """
    topology = both.get("topology")
    if topology is None or not topology.startswith(_MACHINE_PLACE):
        return
    needed = both.get("nodes", 1) * both.get("autoscaling", {}).get("max", both.get("replicas", 1))
    kept = pool.get("nodes", pool.get("min_nodes", 0))
    if kept < needed:
        expected = f"a pool that keeps {needed} nodes: none is added for a label that new nodes lack; it keeps {kept}"
        fix = (
            f"Set `nodes` or `minNodes` of `{pool['pool']}` to {needed} at least, or leave it out: `compact` needs none"
        )
        yield ConfigError(f"{path}.topology", topology, expected, fix)


def _slice_problems(pool: Any, machine: Any, count: int | None, path: str, named: str) -> Iterator[ConfigError]:
    """Check that a replica fills a TPU slice of one machine: nodes of a larger one carry another topology's label."""
    topology = pool.get("topology", machine.topologies[0])
    if topology in machine.topologies and machine.hosts(topology) > 1:
        expected = (
            f"a pool of one-machine slices; those of `{pool['pool']}`, {topology}, have {machine.hosts(topology)}"
        )
        fix = f"Use topology {machine.topologies[0]} there: vLLM joins the machines of a slice by Ray only"
        yield ConfigError(named, pool["pool"], expected, fix)
    elif count is not None and count < machine.chips:
        expected = f"{machine.chips}, all chips of a node of `{pool['pool']}`"
        yield ConfigError(f"{path}.accelerator.count", count, expected, "Leave `accelerator` out, the pool says it")


def _machine(pool: Any) -> Any:
    accelerator = CATALOGUE.get(pool["accelerator"])
    return accelerator.machine(pool.get("machine_type")) if accelerator else None
