"""Every manifest against the CRD of its kind, in many shapes."""

from pathlib import Path

import pytest

from cli.graph.schemas import SchemaSet
from tests.support.arguments import CALLOUT, IMAGE, declared
from tests.support.traffic import with_rules

CRDS = Path(__file__).parents[4] / "shared" / "crds"

SHAPES = [
    ("InferenceGateway", {}),
    ("InferenceGateway", {"tls": None, "hostname": "llm.example.com", "address_name": "vip"}),
    ("InferenceGateway", {"tls": {"cert_manager_certs": ["a", "b"]}, "ssl_policy": "modern"}),
    ("InferenceGateway", {"tls": {"pre_shared_certs": ["a"]}, "allow_global_access": False}),
    ("InferenceGateway", {"redirect_http": True, "address_name": "vip"}),
    ("BodyRouter", {}),
    ("InferencePool", {}),
    (
        "InferencePool",
        {
            "failure_mode": "FailOpen",
            "log_sample_rate": 0.25,
            "security_policy": "armor",
            "objectives": [{"name": "batch", "priority": -5}],
            "objective_api": "gaie-1.5",
        },
    ),
    ("InferencePool", {"objectives": [{"name": "batch", "priority": 5}], "objective_api": "llm-d-0.10"}),
    ("InferencePool", {"picker": {"image": IMAGE, "scorers": [{"type": "queue-scorer", "weight": 0.5}]}}),
    ("ModelRoute", {}),
    ("ModelRoute", {"objective": "batch", "listener": "https", "hostnames": ["llm.example.com"]}),
    ("ModelRoute", {"pools": [{"name": f"p{number}", "weight": number} for number in range(16)]}),
    ("ModelRoute", {"paths": [f"/v1/path{number}" for number in range(32)]}),
    ("Extensions", {}),
    ("Extensions", {"callouts": [{**CALLOUT, "name": f"c{number}"} for number in range(3)]}),
    ("Extensions", {"callouts": [{**CALLOUT, "metadata": {"a{b}": '[{"x": "y, z"}]' + "v" * 1000}}]}),
    (
        "Extensions",
        {
            "callouts": [
                {"name": "apigee", "apigee_backend": "a", "events": CALLOUT["events"], "metadata": {"a-b": "true"}}
            ]
        },
    ),
    ("ApiManagement", {}),
    ("Guardrails", {}),
    ("SecurityBase", with_rules()),
    ("Extensions", {"match": "request.path.startsWith('/v1/') && request.method == 'POST'"}),
    (
        "Extensions",
        {
            "callouts": [
                {
                    "name": "armor",
                    "google_api_service": "modelarmor.us-central1.rep.googleapis.com",
                    "events": ["RequestHeaders", "RequestBody", "ResponseHeaders", "ResponseBody"],
                    "fail_open": True,
                    "timeout_ms": 10_000,
                }
            ]
        },
    ),
]


@pytest.fixture(scope="module")
def schemas():
    if not CRDS.is_dir():
        pytest.skip(f"no CRDs in {CRDS}")
    return SchemaSet.load(CRDS)


@pytest.mark.parametrize(("component", "changes"), SHAPES, ids=lambda value: str(value)[:60])
def test_custom_resources_are_correct_by_schema(schemas, component, changes):
    judged = [verdict for verdict in schemas.judge(declared(component, **changes)) if verdict.status != "skipped"]
    assert judged
    for verdict in judged:
        problem = "\n".join(map(str, verdict.errors))
        assert verdict.status == "ok", f"{verdict.resource.key}: {verdict.status}\n{problem}"
        assert not verdict.not_evaluated


def test_the_checker_would_notice(schemas):
    """The same objects with one wrong value each are refused, so that the tests above can fail."""
    from dataclasses import replace

    graph = declared("Extensions", callouts=[CALLOUT])
    traffic = next(item for item in graph.resources if item.name == "it-traffic")
    for path, value in (("timeout", "11s"), ("supportedEvents", ["RequestHeaders"]), ("authority", ""), ("typo", 1)):
        spec = dict(traffic.inputs["spec"])
        chain = dict(spec["extensionChains"][0])
        chain["extensions"] = [{**chain["extensions"][0], path: value}]
        wrong = replace(traffic, inputs={**traffic.inputs, "spec": {**spec, "extensionChains": [chain]}})
        assert schemas.verdict(wrong).status == "invalid", path
