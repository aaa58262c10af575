"""What the plan derives from settings, and what it refuses because settings of different components do not fit."""

import copy
from pathlib import Path

import pytest
import yaml
from penstock import ConfigErrors

from infra import plan
from infra.settings import PREFIX

ROOT = Path(__file__).parents[3]


def environment(name):
    config = yaml.safe_load((ROOT / f"Pulumi.{name}.yaml").read_text(encoding="utf-8"))["config"]
    return {key.removeprefix(PREFIX): value for key, value in config.items()}


PROD, STAGING = environment("prod"), environment("staging")


def changed(base, changes):
    """Return a copy of `base` with values set by dotted paths; `...` takes a key away."""
    raw = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        target = raw
        for part in parents:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return raw


def refusals(base, changes):
    with pytest.raises(ConfigErrors) as caught:
        plan.load(changed(base, changes))
    return {error.path: error for error in caught.value.errors}


def args_of(planned):
    return {each.name: each.args for each in planned}


def test_a_pool_says_accelerator_node_label_and_rdma_of_its_replica_sets():
    _, made = plan.load(PROD)
    sets = args_of(made.replica_sets)
    assert sets["llama-3-1-405b-a"]["accelerator"] == {"type": "nvidia-h200-141gb", "count": 8}
    assert sets["llama-3-1-405b-a"]["rdma"] == {"mode": "roce", "rails": 8}
    assert "rdma" not in sets["llama-3-1-405b-b"]  # one node alone needs none
    assert sets["gemma-3-12b-a"]["accelerator"] == {"type": "nvidia-l4", "count": 2}
    assert sets["gemma-3-12b-a"]["node_selector"] == {"penstock.dev/pool": "l4"}


def test_pools_of_several_nodes_select_leaders_only():
    _, made = plan.load(PROD)
    assert {name: args.get("leader_only", False) for name, args in args_of(made.pools).items()} == {
        "llama-3-1-405b-a": True,
        "llama-3-1-405b-b": False,
        "gemma-3-12b-a": False,
    }


def test_weights_are_in_the_declared_bucket_and_read_by_an_identity_of_the_project():
    _, made = plan.load(PROD)
    weights = made.replica_sets[0].args["weights"]
    assert weights["bucket"] == made.platform.bucket.args["name"] == "example-inference-prod-penstock-prod-models"
    assert (weights["project"], weights["project_number"]) == ("example-inference-prod", "100000000003")


def test_a_replica_sets_own_autoscaling_or_weights_take_the_place_of_its_models():
    raw = changed(STAGING, {"models.1.replicaSets": [{"name": "a", "replicas": 2, "source": "a/b"}, {"name": "b"}]})
    _, made = plan.load(raw)
    own, inherited = [each.args for each in made.replica_sets[2:]]
    assert own.keys() & {"replicas", "autoscaling", "source", "weights"} == {"replicas", "source"}
    assert inherited.keys() & {"replicas", "autoscaling", "source", "weights"} == {"autoscaling", "weights"}


def test_the_cluster_is_wanted_for_what_the_settings_use():
    _, made = plan.load(PROD)
    assert made.platform.cluster.args["features"] == ["apigee", "fqdn-policy", "inference-pool"]
    assert made.platform.cluster.args["multi_networking"] is True
    assert made.platform.cluster.args["accelerators"] == ["h200-ultra", "l4"]


def test_bundled_guardrails_are_served_by_bundled_api_management_in_one_callout():
    _, made = plan.load(STAGING)
    assert made.guardrails.args["served_by"] == "api-management"
    assert made.api_management.args["guardrails"] is made.guardrails.args
    assert [entry["name"] for entry in made.extensions.args["callouts"]] == ["api-management"]


def test_apigee_stands_before_model_armor():
    _, made = plan.load(PROD)
    callouts = [entry["name"] for entry in made.extensions.args["callouts"]]
    assert callouts == ["api-management", "guardrails", "model-armor"], "the callout screens streams, which it skips"


def test_network_policies_follow_from_what_is_declared():
    _, made = plan.load(PROD)
    rules = made.security.args["network"]
    assert rules["proxy_range"] == "10.9.0.0/23"
    assert rules["multi_node"] == ["llama-3-1-405b-a"]
    assert rules["google_api_clients"] == ["llama-3-1-405b-a", "llama-3-1-405b-b", "gemma-3-12b-a", "guardrails"]
    assert "hub_clients" not in rules
    _, made = plan.load(environment("dev"))
    assert made.security.args["network"]["hub_clients"] == ["gemma-3-4b-a"]


def test_autoscalers_ask_for_metrics_of_this_cluster_only():
    _, made = plan.load(changed(PROD, {"models.1.autoscaling.min": 0}))
    scaling = made.replica_sets[2].args["autoscaling"]
    assert scaling["cluster"] == "penstock-prod-cluster"
    assert "activation_query" not in scaling, "Penstock's picker counts by the names that are the default"


def test_upstreams_picker_wakes_sets_and_knows_objectives_by_its_own_names():
    upstream = {"picker": {"profile": "gaie-1.5"}, "models.1.autoscaling.min": 0}
    _, made = plan.load(changed(PROD, upstream))
    query = made.replica_sets[2].args["autoscaling"]["activation_query"]
    assert 'cluster="penstock-prod-cluster"' in query
    assert "inference" in query
    assert "penstock_picker" not in query
    assert all(pool["objective_objects"] for pool in made.routes[0].args["pools"])
    _, own = plan.load(PROD)
    assert not any("objective_objects" in pool for pool in own.routes[0].args["pools"])


def test_firewall_rules_aim_at_the_account_of_the_clusters_nodes():
    _, made = plan.load(PROD)
    account = "penstock-prod-nodes@example-inference-prod.iam.gserviceaccount.com"
    assert made.platform.network.args["node_service_accounts"] == [account]


SUBBLOCK = "cloud.google.com/gce-topology-subblock"
REFUSED = [
    ({"stacks": "three"}, "stacks", "`one` or `two`"),
    ({"network": ...}, "network", "the VPC of `cluster`"),
    ({"cluster": ...}, "acceleratorPools", "`cluster`"),
    ({"cluster": ...}, "rdma", "`cluster`"),
    ({"kubernetes": {"context": "c"}}, "kubernetes", "either `cluster`"),
    ({"project": ...}, "project", "a project, in which `network` is declared"),
    ({"region": ...}, "region", "a region, in which `network` is declared"),
    ({"projectNumber": ...}, "projectNumber", "read by an identity of the project"),
    ({"cluster.minVersion": "1.33.1-gke.1"}, "cluster.minVersion", ""),
    ({"zones.0": "europe-west1-b"}, "zones[0]", "a zone of the region us-central1"),
    ({"rdma.zone": "us-central1-a"}, "acceleratorPools[0].zones", "the one zone that `rdma` makes networks for"),
    ({"rdma.rails": 4}, "rdma.rails", "8, the RDMA interfaces of a3-ultragpu-8g"),
    ({"rdma": {"mode": "dranet"}}, "acceleratorPools[0].rdma", "`dranet`, as `rdma.mode` says"),
    ({"rdma": ...}, "acceleratorPools[0].rdma", "`rdma`, which says how"),
    ({"acceleratorPools.1.pool": "h200"}, "acceleratorPools[1].pool", "a name of its own"),
    ({"acceleratorPools.0.maxNodes": 1}, "models[0].replicaSets[0].nodes", "at most 1"),
    ({"models.1.pool": "h100"}, "models[1].pool", "one of `acceleratorPools`"),
    ({"models.0.replicaSets.0.topology": SUBBLOCK}, "models[0].replicaSets[0].topology", "a pool that keeps 4 nodes"),
    (
        {"models.1.accelerator": {"type": "nvidia-b200"}},
        "models[1].replicaSets[0].accelerator.type",
        "`nvidia-l4`, which the nodes of `l4` have",
    ),
    ({"models.1.accelerator": {"count": 4}}, "models[1].replicaSets[0].accelerator.count", "at most 2"),
    (
        {"models.0.replicaSets.0.rdma": {"mode": "dranet"}},
        "models[0].replicaSets[0].rdma.mode",
        "`roce`, as its pool `h200`",
    ),
    ({"addons.keda": False}, "models[1].replicaSets[0].autoscaling.by", "`addons.keda`"),
    ({"models.1.autoscaling.by": "hpa"}, "models[1].replicaSets[0].autoscaling.by", "`addons.customMetrics`"),
    (
        {"models.1.autoscaling.min": 0, "models.1.monitoring": ...},
        "models[1].replicaSets[0].autoscaling.min",
        "`monitoring: true`",
    ),
    (
        {"models.1.autoscaling.min": 0, "picker.discovery": "dns"},
        "models[1].replicaSets[0].autoscaling.min",
        "`picker.discovery: kubernetes`",
    ),
    ({"addons.kedaNamespace": "elsewhere"}, "addons.kedaNamespace", "`default`, where the replicas are"),
    ({"addons.leaderWorkerSet": False}, "models[0].replicaSets[0].nodes", "`addons.leaderWorkerSet`"),
    ({"addons.objectiveApis": []}, "models[0].objectiveApi", "an API of `addons.objectiveApis`"),
    ({"modelBucket": ...}, "models[1].weights.bucket", "the bucket of the weights"),
    ({"gateway.tls": ...}, "publication", "`gateway.tls`"),
    ({"publication.port": 80}, "publication.port", "443, the listener with TLS"),
    ({"publication": ...}, "privateEndpoints", "`publication`"),
    ({"publication.accept.1.project": "other-project"}, "privateEndpoints[1].network", "`publication.accept` names"),
    ({"privateEndpoints.1.project": "example-clients-c"}, "privateEndpoints[1].network", "`publication.accept` names"),
    ({"privateEndpoints.1.name": "clients-a"}, "privateEndpoints[1].name", "a name of its own"),
    ({"privateEndpoints.0.hostname": "a.example.com"}, "privateEndpoints[0].hostname", "`inference.example.com`"),
    ({"gateway.allowGlobalAccess": False}, "privateEndpoints[0].globalAccess", "false"),
    ({"apiManagement.products.0.models": ["gpt-5"]}, "apiManagement.products[0].models[0]", "a model or adapter"),
    ({"guardrails.templates.0.models": ["x"]}, "guardrails.templates[0].models[0]", "a model or adapter"),
    ({"namespace": "inference"}, "namespace", ""),
    ({"models.0.name": "api", "models.0.replicaSets.0.name": "management"}, "models[0].replicaSets[0].name", ""),
]


@pytest.mark.parametrize(("changes", "path", "expected"), REFUSED, ids=lambda value: str(value)[:60])
def test_settings_that_do_not_fit_together_are_refused(changes, path, expected):
    found = refusals(PROD, changes)
    assert path in found, list(found)
    assert expected in found[path].expected
    assert found[path].fix


@pytest.mark.parametrize("pool", [{"minNodes": 4, "maxNodes": 6}, {"nodes": 5}])
def test_a_replica_is_kept_together_by_place_among_nodes_that_stay(pool):
    raw = changed(PROD, {"models.0.replicaSets.0.topology": SUBBLOCK, "acceleratorPools.0.maxNodes": ...})
    raw["acceleratorPools"][0].update(pool)
    _, made = plan.load(raw)
    assert args_of(made.replica_sets)["llama-3-1-405b-a"]["topology"] == SUBBLOCK


def test_an_endpoint_more_than_accepted_is_refused():
    one = {"limit": 1, "project": "example-clients-staging"}
    again = PROD["privateEndpoints"][0] | {"name": "more", "project": "example-clients-staging"}
    raw = changed(STAGING, {"publication.accept": [one]})
    raw["privateEndpoints"].append(again)
    assert set(refusals(raw, {})) == {"privateEndpoints[1]"}


def test_consumers_may_be_accepted_by_network_in_whichever_form():
    network = "https://www.googleapis.com/compute/v1/projects/example-clients-staging/global/networks/clients"
    plan.load(changed(STAGING, {"publication.accept": [{"network": network, "limit": 1}]}))


def test_what_cannot_be_filled_in_without_a_network_has_to_be_given():
    raw = {
        "image": "a/b:1",
        "vllmImage": "a/v:1",
        "project": "some-project",
        "region": "us-central1",
        "projectNumber": "1",
        "gateway": {"address": {}, "tls": {"secretNames": ["s"]}},
        "publication": {"accept": [{"project": "some-clients", "limit": 1}]},
        "security": {"network": {}},
        "apiManagement": {"mode": "bundled", "store": {"kind": "memorystore", "memorystore": {}}},
        "models": [{"name": "m", "source": "a/m", "replicaSets": [{"name": "a"}]}],
    }
    assert set(refusals(raw, {})) == {
        "gateway.address.subnetwork",
        "publication.natSubnetworks",
        "security.network.proxyRange",
        "security.network.storeRanges",
        "apiManagement.store.memorystore.network",
        "apiManagement.store.memorystore.subnetwork",
    }
