"""What the component renders the service reads, and what the service would refuse the plan refuses first."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.manifests import management_config

from services.apimgmt import chain
from services.apimgmt.domain import Product, TemplateRule
from services.apimgmt.policies import REGISTRY
from services.apimgmt.settings import Settings
from services.apimgmt.template_rules import violations
from services.extproc.config import parse_config

NAMES = tuple(REGISTRY)


def test_the_component_knows_the_services_policies_and_their_places() -> None:
    assert management_config.POLICIES == chain.ORDER == NAMES
    assert management_config.ALWAYS == chain.ALWAYS
    assert management_config.USUALLY == chain.USUALLY
    assert management_config.SEVERAL == chain.SEVERAL


def args(**more: Any) -> Any:
    return {"mode": "bundled", "namespace": "inference", "image": "example/services:1", **more}


def rendered(**more: Any) -> Settings:
    return parse_config(management_config.config(args(**more)), Settings)


def test_everything_that_can_be_set_reaches_the_service() -> None:
    found = rendered(
        store={"kind": "sqlite"},
        organizations=[{"name": "acme", "display_name": "Acme", "limits": ["month"], "rate_plan": "cheap"}],
        teams=[{"name": "red", "organization": "acme"}],
        developers=[{"name": "ada@acme.example", "organization": "acme", "team": "red", "role": "teamLead"}],
        groups=[{"name": "shared", "organization": "acme", "teams": ["red"], "limits": ["month"]}],
        apps=[
            {
                "name": "chat",
                "organization": "acme",
                "team": "red",
                "developer": "ada@acme.example",
                "products": [{"product": "all", "status": "pending"}],
                "oauth_client_id": "client",
                "trusted_agent": True,
            }
        ],
        limits=[{"name": "month", "scope": "group", "kind": "cost", "amount": 5, "window": "month", "rolling": True}],
        rate_plans=[{"name": "cheap", "free_tokens": 7, "prices": {"prompt": 1}, "models": {"a_model": {"cached": 2}}}],
        products=[
            {
                "name": "all",
                "models": ["*"],
                "max_output_tokens": 9,
                "policies": [{"policy": "script", "settings": {"source": "x", "some_key": {"in_it": 1}}}],
            }
        ],
        template_rules=[{"name": "rule", "denied": ["external"]}],
        key_value_maps=["secrets"],
        estimation={"reserve": "bytes", "output_tokens": 3},
        ledger={"retention_days": 3, "export": {"url": "gs://bucket/x", "max_records": 8}},
        recording={"path": "/tmp/r.jsonl", "sample_ratio": 0.5, "max_bytes": 2048},
        tracing={"endpoint": "http://collector:4318/v1/traces", "sample_ratio": 1.0},
        portal={"title": "Models", "endpoint": "https://models.example"},
        policies=[{"policy": "spike-arrest", "mode": "shadow", "settings": {"requests": {"amount": 1}}}],
    )
    assert found.organizations[0].rate_plan == "cheap"
    assert found.apps[0].oauth_client_id == "client"
    assert found.apps[0].products[0].status == "pending"
    assert (found.limits[0].rolling, found.limits[0].scope.value) == (True, "group")
    assert found.rate_plans[0].models["a_model"].cached == 2
    assert found.products[0].policies[0].settings == {"source": "x", "some_key": {"in_it": 1}}
    assert found.products[0].max_output_tokens == 9
    assert found.estimation.output_tokens == 3
    assert found.ledger.export is not None
    assert found.ledger.export.max_records == 8
    assert found.portal.title == "Models"
    assert found.recording is not None
    assert (found.recording.sample_ratio, found.recording.max_bytes) == (0.5, 2048)
    assert found.tracing is not None
    assert found.tracing.endpoint == "http://collector:4318/v1/traces"
    assert found.policies[0].mode == "shadow"


USES = st.lists(
    st.builds(
        lambda policy, mode, when: {"policy": policy, "mode": mode} | ({"when": "stream"} if when else {}),
        st.sampled_from(NAMES),
        st.sampled_from(["enforce", "shadow", "off"]),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda use: use["policy"],
)
RULES = st.fixed_dictionaries(
    {"name": st.just("rule")},
    optional={
        "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
        "denied": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
        "allowed": st.lists(st.sampled_from(NAMES), max_size=4, unique=True),
    },
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(USES, USES, RULES)
def test_plan_and_service_see_the_same_violations(everywhere: Any, own: Any, rule: Any) -> None:
    own = [use for use in own if use["policy"] not in chain.ALWAYS]
    product = {"name": "chat", "models": ["m"], "policies": own}
    planned = args(policies=everywhere, products=[product], template_rules=[rule])
    refused = list(management_config.rule_problems(planned, "args"))
    served = rendered(policies=everywhere, products=[product])
    found = violations([TemplateRule.model_validate(rule)], served.policies, Product.model_validate(product))
    assert bool(refused) == bool(found), (refused, found)


@pytest.mark.parametrize("environment", ["local", "dev", "staging"])
def test_the_environments_of_the_repository_are_what_the_service_takes(environment: str) -> None:
    from pathlib import Path

    from cli.graph.program import record_environment

    root = Path(__file__).resolve().parents[4]
    maps = [m for m in record_environment(environment, root=root).manifests() if m["kind"] == "ConfigMap"]
    (text,) = [m["data"]["config.yaml"] for m in maps if m["metadata"]["name"] == "api-management"]
    served = parse_config(text, Settings)
    assert served.products
    assert chain.problems(served.policies, None) == []
