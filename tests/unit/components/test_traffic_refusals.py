"""What API management, guardrails and the security base refuse: path, value, what was expected and the fix."""

import penstock
import pytest

from tests.support.arguments import CALLOUT, IMAGE, declared, problems
from tests.support.traffic import (
    APIGEE,
    BRIDGE,
    BRIDGED,
    CLOUD,
    FILTERS,
    MEMORYSTORE,
    MODEL_ARMOR,
    NETWORK,
    SHARED,
    TEMPLATE,
    VALKEY,
    with_apigee,
    with_rules,
)

NEMO = {"mode": "nemo", "templates": None}


def templates(*changes, **more):
    return {"templates": [{**TEMPLATE, **change} for change in changes], **more}


def filters(**given):
    return templates({"filters": given})


def armor(**changes):
    return {**MODEL_ARMOR, **changes}


def bridge(**changes):
    return {**APIGEE, "apigee": {**BRIDGED, **changes}}


def limit(**changes):
    given = {"name": "per-key", "scope": "key", "kind": "requests", "amount": 60, "window": "minute", **changes}
    return {"limits": [{key: value for key, value in given.items() if value is not None}]}


def product(**changes):
    return {"products": [{"name": "chat", "models": ["m1"], **changes}]}


def egress(**changes):
    given = {"name": "nemo", "workloads": ["guardrails"], "ports": [8000], "namespace": "nemo", **changes}
    return with_rules(egress=[{key: value for key, value in given.items() if value is not None}])


def audit(**changes):
    return {"audit": {"project": "producer-1", **changes}}


GUARDRAILS = [
    ({"mode": "on"}, "mode", "on", "one of model_armor, bundled", "Use one of"),
    ({"namespace": "A"}, "namespace", "A", "DNS label", "Rename"),
    ({"timeout_ms": 5}, "timeout_ms", 5, "10 to 10000", "at least 10"),
    ({"workload": {"replicas": 0}}, "workload.replicas", 0, "pods from 1", "at least 1"),
    ({"image": None}, "image", None, "image of Penstock", "Set it"),
    ({"image": "services:latest"}, "image", "services:latest", "pinned", "version"),
    (armor(streaming=None), "streaming", None, "skips streamed answers", "stream: true"),
    (armor(streaming="ignore"), "streaming", "ignore", "refuse, callout, unscreened", "Use one of"),
    ({"streaming": "refuse"}, "streaming", "refuse", "mode model_armor", "Remove it"),
    ({"mode": "off"}, "templates", None, "mode model_armor or bundled", "Remove it"),
    (armor(project=None), "project", None, "live in a project", "Set it"),
    (armor(project="P"), "project", "P", "project id", "Give the id"),
    (armor(region="europe"), "region", "europe", "a region", "us-central1"),
    (armor(project_number="abc"), "project_number", "abc", "digits", "Look it up"),
    (armor(labels={"part-of": "x"}), "labels.part-of", "x", "of your own", "Remove it"),
    (armor(floor={"filters": {}}), "floor.filters", {}, "at least one filter", "mode `off`"),
    (armor(name="n" * 60), "templates[0].name", "base", "at most 2 characters", "Shorten"),
    ({"floor": {"filters": FILTERS}, "mode": "nemo"}, "floor", None, "mode model_armor or bundled", "Remove it"),
    ({"backends": []}, "backends", [], "one or more of", "Name who decides"),
    ({"backends": ["builtin", "builtin"]}, "backends[1]", "builtin", "once", "Remove one"),
    ({"backends": ["other"]}, "backends[0]", "other", "one of builtin, model_armor", "Use one of"),
    ({"backends": ["model_armor"]}, "project", None, "live in a project", "Set it"),
    (NEMO, "nemo", None, "address", "Set it"),
    ({**NEMO, "nemo": {"url": "nemo:8000", "config_id": "x"}}, "nemo.url", "nemo:8000", "http or https", "Write it"),
    (
        {**NEMO, "nemo": {"url": "http://user:word@nemo", "config_id": "x"}},
        "nemo.url",
        "http://user:word@nemo",
        "without credentials",
        "Write it",
    ),
    ({"served_by": "body-router"}, "served_by", "body-router", "one of own, api-management", "Use one of"),
    (armor(served_by="api-management"), "served_by", "api-management", "callout of ours", "Remove it"),
    (templates({"models": ["m"]}), "templates", [], "exactly one template without", "Leave `models` out"),
    (templates({}, {"name": "two"}), "templates", ["base", "two"], "exactly one", "Leave"),
    (templates({}, {"models": ["m"]}), "templates[1].name", "base", "once", "Rename"),
    (templates({}, {"name": "b", "models": []}), "templates[1].models", [], "at least one model", "Name models"),
    (templates({}, {"name": "b", "models": ["default"]}), "templates[1].models[0]", "default", "the rest", "Remove it"),
    (templates({}, {"name": "b", "models": ["m", "m"]}), "templates[1].models[1]", "m", "no other", "Remove it"),
    (filters(), "templates[0].filters", {}, "at least one filter", "Name what"),
    (filters(prompt_injection="LOW"), "templates[0].filters.prompt_injection", "LOW", "LOW_AND_ABOVE", "Use one of"),
    (filters(responsible_ai={"HATE": "HIGH"}), "templates[0].filters.responsible_ai.HATE", "HATE", "HATE_SPEECH", ""),
    (
        filters(sensitive_data={"deidentify_template": "d"}),
        "templates[0].filters.sensitive_data.deidentify_template",
        "d",
        "`inspect_template` too",
        "Add it",
    ),
    (
        filters(sensitive_data={"basic": True, "inspect_template": "i"}),
        "templates[0].filters.sensitive_data.basic",
        True,
        "either",
        "Remove one",
    ),
    (
        filters(sensitive_data={"info_types": {"EMAIL": "hide"}}),
        "templates[0].filters.sensitive_data.info_types.EMAIL",
        "hide",
        "one of block, redact",
        "Use one of",
    ),
    (
        armor(**filters(sensitive_data={"info_types": {"EMAIL": "block"}})),
        "templates[0].filters.sensitive_data.info_types",
        "...",
        "mode bundled",
        "inspect_template",
    ),
    (templates({"enforcement": "BLOCK"}), "templates[0].enforcement", "BLOCK", "INSPECT_AND_BLOCK", ""),
    (templates({"filter_version": "beta"}), "templates[0].filter_version", "beta", "stable, latest", ""),
    (templates({"prompt_error_code": 200}), "templates[0].prompt_error_code", 200, "400 to 599", "at least"),
    (templates({"answer_error_message": ""}), "templates[0].answer_error_message", "", "1 to 1024", "length"),
]

MANAGEMENT = [
    ({"mode": "kong"}, "mode", "kong", "one of bundled, apigee", "Use one of"),
    ({"image": None}, "image", None, "image of Penstock", "Set it"),
    ({"timeout_ms": 20_000}, "timeout_ms", 20_000, "10 to 10000", "at most"),
    ({"apigee": {"environment": {"name": "e"}}}, "apigee", "...", "mode apigee", "Remove it"),
    ({**APIGEE, "store": {"kind": "sqlite"}}, "store", "...", "mode bundled", "Remove it"),
    ({"workload": {"replicas": 2}}, "workload.replicas", 2, "one pod", "memorystore"),
    ({"store": {"kind": "mysql"}}, "store.kind", "mysql", "sqlite, memorystore, valkey", "Use one of"),
    ({"store": {"kind": "valkey"}}, "store.valkey", None, "settings of the store", "Set it"),
    ({"store": {"kind": "sqlite", "storage_gib": 0}}, "store.storage_gib", 0, "GiB from 1", "at least"),
    ({**VALKEY, "store": {**VALKEY["store"], "kind": "sqlite"}}, "store.valkey", None, "the kind is sqlite", "Remove"),
    ({**MEMORYSTORE, "project": None}, "project", None, "live in a project", "Set it"),
    (
        {**MEMORYSTORE, "store": {"kind": "memorystore", "memorystore": {"network": NETWORK}}},
        "store.memorystore.subnetwork",
        None,
        "connection policy",
        "Set it",
    ),
    (
        {**CLOUD, "store": {"kind": "memorystore", "memorystore": {"network": "n", "connection_policy": False}}},
        "store.memorystore.network",
        "n",
        "URI of a VPC",
        "projects/",
    ),
    ({"pepper_secret": {"name": "A b"}}, "pepper_secret.name", "A b", "DNS label", "Rename"),
    ({"guardrails": {**SHARED, "served_by": "own"}}, "guardrails.served_by", "own", "own are no part", "leave"),
    ({"guardrails": {**SHARED, "namespace": "x"}}, "guardrails.namespace", "x", "`inference`", "one namespace"),
    ({"guardrails": {**SHARED, "mode": "on"}}, "guardrails.mode", "on", "one of", ""),
    (limit(scope="all"), "limits[0].scope", "all", "organization, group, team", "Use one of"),
    (limit(kind="bytes"), "limits[0].kind", "bytes", "requests, tokens", ""),
    (limit(amount=0), "limits[0].amount", 0, "an amount from 1", "at least"),
    (limit(window=None), "limits[0].window", None, "one of minute", "Set it"),
    (limit(kind="concurrent"), "limits[0].window", "minute", "no window", "Remove it"),
    (limit(window="year"), "limits[0].window", "year", "minute, hour", ""),
    (product(models=[]), "products[0].models", [], "at least one model", "Name the models"),
    (product(operations=["/v1/chat"]), "products[0].operations[0]", "/v1/chat", "/v1/chat/completions", ""),
    (product(limits=["per-team"]), "products[0].limits[0]", "per-team", "one of per-key", ""),
    (product(approval="no"), "products[0].approval", "no", "auto, manual", ""),
    ({"template_rules": [{"name": "a", "required": ["x y"]}]}, "template_rules[0].required[0]", "x y", "policy", ""),
    (
        {"template_rules": [{"name": "a", "required": ["x"], "denied": ["x"]}]},
        "template_rules[0].required[0]",
        "x",
        "does not deny",
        "Remove it",
    ),
    ({**APIGEE, "apigee": None}, "apigee", None, "Apigee's settings", "environment"),
    ({**APIGEE, "namespace": "inference"}, "namespace", "inference", "`default`", "any_namespace"),
    ({**APIGEE, "name": "n" * 26}, "name", "n" * 26, "at most 25", "by 1 char"),
    ({**APIGEE, "region": None}, "region", None, "live in a project", "Set it"),
    (with_apigee(environment={"name": "e", "type": "BASE"}), "apigee.environment.type", "BASE", "INTERMEDIATE", ""),
    (with_apigee(organization={"create": True}), "apigee.organization.analytics_region", None, "a region", "Set it"),
    (with_apigee(network=None), "apigee.network", None, "Gateway's network", "Set it"),
    (with_apigee(subnetwork="s"), "apigee.subnetwork", "s", "URI of a subnetwork", "projects/"),
    (with_apigee(operator={"version": "1.1"}), "apigee.operator.version", "1.1", "three numbers", "1.1.1"),
    (with_apigee(service_extension=False), "apigee.service_extension", False, "does nothing", "Set one"),
    (with_apigee(templates=[{"name": "t", "rule": "r", "templates": []}]), "apigee.templates[0].rule", "r", "", ""),
    (with_apigee(bridge=BRIDGE), "apigee.instance", None, "clients of a bridge", "Set it"),
    (bridge(bridge={**BRIDGE, "hostname": "x"}), "apigee.bridge.hostname", "x", "DNS name", "llm.example.com"),
    (
        bridge(environment_group={"name": "g", "hostnames": ["other.example.com"]}),
        "apigee.bridge.client.hostname",
        "llm.example.com",
        "one of other.example.com",
        "",
    ),
    ({**APIGEE, **limit(kind="tokens")}, "limits[0]", "tokens by key", "counts nothing else", "bundled"),
]

SECURITY = [
    ({"network": None, "audit": None}, "", None, "`network`, `audit` or both", "leave the component out"),
    ({"name": "N"}, "name", "N", "DNS label", "Rename"),
    (with_rules(proxy_range="10.9.0.1/23"), "network.proxy_range", "10.9.0.1/23", "CIDR", "10.9.0.0/23"),
    (with_rules(proxy_range="0.0.0.0/0"), "network.proxy_range", "0.0.0.0/0", "at least 8 bits", "Narrow"),
    (with_rules(google_apis="public"), "network.google_apis", "public", "private, restricted", ""),
    (with_rules(hub_hosts=["http://x"]), "network.hub_hosts[0]", "http://x", "a host name", "*.example.com"),
    (with_rules(multi_node=["a", "a"]), "network.multi_node[1]", "a", "once", "Remove"),
    (with_rules(replica_ports=[0]), "network.replica_ports[0]", 0, "a port", "at least"),
    (with_rules(store="redis"), "network.store", "redis", "valkey, memorystore", ""),
    (with_rules(store="memorystore"), "network.store_ranges", None, "range of Memorystore", "agree"),
    (egress(namespace=None), "network.egress[0]", "nemo", "exactly one", "where it leads"),
    (egress(ports=[]), "network.egress[0].ports", [], "at least one port", "Name"),
    (egress(workloads=[]), "network.egress[0].workloads", [], "at least one workload", "Name"),
    (egress(namespace=None, range="0.0.0.0/0"), "network.egress[0].range", "0.0.0.0/0", "8 bits", "Narrow"),
    (audit(services=[{"service": "storage"}]), "audit.services[0].service", "storage", "a service's name", "Write"),
    (
        audit(services=[{"service": "a.googleapis.com", "log_types": ["READ"]}]),
        "audit.services[0].log_types[0]",
        "READ",
        "ADMIN_READ",
        "",
    ),
    (audit(archive={"location": "x", "retention_days": 0}), "audit.archive.retention_days", 0, "days from 1", ""),
]

EXTENSIONS = [
    ({"apigee_backend": "a", "service": "b", "port": 1}, "", "x", "exactly one of", "Name"),
    ({"apigee_backend": "A"}, ".apigee_backend", "A", "DNS label", "Rename"),
    ({"apigee_backend": "a", "authority": "h"}, ".authority", "h", "no value", "Remove it"),
    ({"apigee_backend": "a", "port": 1}, ".port", 1, "no value", "Remove it"),
    ({"apigee_backend": "a", "service_namespace": "b"}, ".service_namespace", "b", "share one namespace", "Deploy"),
]

ROWS = [
    *[("Guardrails", *row) for row in GUARDRAILS],
    *[("ApiManagement", *row) for row in MANAGEMENT],
    *[("SecurityBase", *row) for row in SECURITY],
    *[
        (
            "Extensions",
            {"callouts": [{"name": "x", "events": CALLOUT["events"], **callout}]},
            f"callouts[0]{path}",
            *row,
        )
        for callout, path, *row in EXTENSIONS
    ],
]


@pytest.mark.parametrize(("component", "changes", "path", "value", "expected", "fix"), ROWS, ids=lambda v: str(v)[:40])
def test_refused(component, changes, path, value, expected, fix):
    whole = f"args.{path}".rstrip(".")
    found = [error for error in problems(component, **changes) if error.path == whole and expected in error.expected]
    assert found, [str(error) for error in problems(component, **changes)]
    (error, *_) = found
    assert value is None or error.value == value
    assert fix in error.fix
    assert error.expected
    assert error.fix
    assert not error.fix.endswith(".")


@pytest.mark.parametrize(
    ("component", "changes"),
    [("Guardrails", {"mode": "on"}), ("ApiManagement", {"mode": "on"}), ("SecurityBase", with_rules(proxy_range="x"))],
)
def test_nothing_is_registered_when_arguments_are_refused(component, changes):
    with pytest.raises(penstock.ConfigErrors):
        declared(component, **changes)


def test_all_errors_come_at_once():
    found = problems(
        "ApiManagement", namespace="A", image=IMAGE, **limit(scope="x", amount=0), workload={"cpu": "half"}
    )
    assert [error.path for error in found] == [
        "args.namespace",
        "args.limits[0].scope",
        "args.limits[0].amount",
        "args.workload.cpu",
    ]
