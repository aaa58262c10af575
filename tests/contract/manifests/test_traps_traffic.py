"""Traps of the traffic chain: one chain, streams past Model Armor, one namespace, limits of metadata."""

import json

import penstock
import pytest

from tests.support.arguments import CALLOUT, args_of, declared, of_kind, problems
from tests.support.traffic import APIGEE, MODEL_ARMOR, SHARED, TEMPLATE, with_apigee

HEADERS = {"name": "front", "service": "front", "port": 9006, "events": ["RequestHeaders", "ResponseHeaders"]}


def callouts_of(component, **changes):
    return getattr(penstock, component).callouts(args_of(component, **changes))


def chain_of(*callouts, **changes):
    graph = declared("Extensions", callouts=list(callouts), **changes)
    (chain,) = of_kind(graph, "GCPTrafficExtension")["spec"]["extensionChains"]
    return chain["extensions"]


def paths(component, **changes):
    return [error.path for error in problems(component, **changes)]


class TestTrap1OneChain:
    def test_apigee_model_armor_and_a_callout_share_one_chain(self):
        armor = callouts_of("Guardrails", **{**MODEL_ARMOR, "namespace": "default", "streaming": "refuse"})
        entries = [*callouts_of("ApiManagement", **APIGEE), *armor]
        found = chain_of(*entries, namespace="default")
        assert [item["name"] for item in found] == ["api-management", "guardrails", "model-armor"]

    def test_a_fourth_callout_is_refused(self):
        entries = [*callouts_of("ApiManagement"), *callouts_of("Guardrails", **{**MODEL_ARMOR, "streaming": "callout"})]
        assert "args.callouts" not in paths("Extensions", callouts=entries)
        assert "args.callouts" in paths("Extensions", callouts=[*entries, CALLOUT])

    def test_the_kind_that_makes_a_traffic_extension_of_its_own_is_never_declared(self):
        kinds = {manifest["kind"] for manifest in declared("ApiManagement", **APIGEE).manifests()}
        assert "APIMExtensionPolicy" not in kinds
        assert "GCPTrafficExtension" not in kinds

    def test_bundled_parts_are_one_callout(self):
        assert [entry["name"] for entry in callouts_of("ApiManagement", guardrails=SHARED)] == ["api-management"]
        assert callouts_of("Guardrails", **SHARED) == []
        config = of_kind(declared("ApiManagement", guardrails=SHARED), "ConfigMap")["data"]
        assert set(config) == {"config.yaml", "guardrails.yaml"}
        container = of_kind(declared("ApiManagement", guardrails=SHARED), "Deployment")["spec"]["template"]["spec"]
        flag = "--guardrails-file=/etc/penstock/config/guardrails.yaml"
        assert flag in container["containers"][0]["args"]
        assert list(declared("Guardrails", **SHARED, image=None).manifests()) == []


class TestTrap2Streams:
    def test_what_happens_to_streamed_answers_has_to_be_decided(self):
        (error,) = problems("Guardrails", **{**MODEL_ARMOR, "streaming": None})
        assert error.path == "args.streaming"
        assert "skips streamed answers" in error.expected

    @pytest.mark.parametrize(("streaming", "screened"), [("refuse", True), ("callout", True), ("unscreened", False)])
    def test_the_decision_is_an_output(self, streaming, screened):
        from cli.graph.recorder import record

        changes = {**MODEL_ARMOR, "streaming": streaming, "image": "penstock/services:0.1.0"}

        def program():
            import pulumi

            made = penstock.Guardrails("it", args_of("Guardrails", **changes))
            pulumi.export("screened", made.streams_screened)

        assert record(program, "test").outputs == {"screened": screened}

    def test_refusing_streams_takes_a_look_at_requests_before_model_armor(self):
        first, armor = callouts_of("Guardrails", **{**MODEL_ARMOR, "streaming": "refuse"})
        assert first["events"] == ["RequestHeaders", "RequestBody", "RequestTrailers"]
        assert armor["google_api_service"] == "modelarmor.us-central1.rep.googleapis.com"
        assert len(armor["events"]) == 6

    def test_streams_that_are_screened_by_callout_are_seen_both_ways(self):
        own, _ = callouts_of("Guardrails", **{**MODEL_ARMOR, "streaming": "callout"})
        assert own["response_body_mode"] == "FullDuplexStreamed"


class TestTrap6OneNamespace:
    @pytest.mark.parametrize(
        ("component", "changes"),
        [("ApiManagement", {}), ("Guardrails", {}), ("ApiManagement", APIGEE)],
        ids=["api-management", "guardrails", "apigee"],
    )
    def test_a_callout_of_another_namespace_is_refused(self, component, changes):
        entries = callouts_of(component, **{**changes, "namespace": "elsewhere"})
        assert paths("Extensions", callouts=entries) == ["args.callouts[0].service_namespace"]
        assert paths("Extensions", callouts=entries, namespace="elsewhere") == []

    def test_apigee_stays_in_the_documented_namespace_unless_told(self):
        (error,) = problems("ApiManagement", **{**APIGEE, "namespace": "inference"})
        assert (error.path, error.value) == ("args.namespace", "inference")
        assert paths("ApiManagement", **{**with_apigee(any_namespace=True), "namespace": "inference"}) == []

    def test_every_object_of_apigee_is_in_the_gateways_namespace(self):
        found = {item["metadata"]["namespace"] for item in declared("ApiManagement", **APIGEE).manifests()}
        assert found == {"default"}


class TestTrap10Metadata:
    def test_settings_are_the_json_that_model_armor_reads(self):
        templates = [{**TEMPLATE, "models": ["gemma-3-12b"]}, {**TEMPLATE, "name": "rest"}]
        (entry,) = callouts_of("Guardrails", **{**MODEL_ARMOR, "templates": templates})
        prefix = "projects/producer-1/locations/us-central1/templates/penstock-dev"
        assert json.loads(entry["metadata"]["model_armor_settings"]) == [
            {
                "model": model,
                "user_prompt_template_id": f"{prefix}-{name}",
                "model_response_template_id": f"{prefix}-{name}",
            }
            for model, name in (("gemma-3-12b", "base"), ("default", "rest"))
        ]
        assert chain_of(entry)[0]["metadata"] == entry["metadata"]

    def test_settings_of_1023_characters_pass_and_of_1024_do_not(self):
        def settings(model):
            templates = [TEMPLATE, {**TEMPLATE, "name": "own", "models": ["a", "b", model]}]
            changes = {**MODEL_ARMOR, "templates": templates}
            (entry,) = callouts_of("Guardrails", **changes)
            return len(entry["metadata"]["model_armor_settings"]), problems("Guardrails", **changes)

        base, _ = settings("m")
        room = 1023 - base
        assert room > 0
        assert settings("m" * (1 + room)) == (1023, [])
        length, (error,) = settings("m" * (2 + room))
        assert length == 1024
        assert error.path == "args.templates"
        assert "1024 of 1023" in error.expected

    @pytest.mark.parametrize("model", ["org/model@1", "a#b", "what?", "back\\slash"])
    def test_characters_that_metadata_cannot_carry_are_refused(self, model):
        found = problems(
            "Guardrails", **{**MODEL_ARMOR, "templates": [TEMPLATE, {**TEMPLATE, "name": "x", "models": [model]}]}
        )
        assert [error.path for error in found] == ["args.templates"]


class TestChainsThatLoseAnswers:
    def test_headers_only_in_front_of_bodies_is_refused_unless_accepted(self):
        entries = [HEADERS, CALLOUT]
        (error,) = problems("Extensions", callouts=entries)
        assert error.path == "args.callouts[0].events"
        assert "cut off" in error.expected
        assert paths("Extensions", callouts=entries, allow_header_only_callouts=True) == []

    def test_headers_only_behind_bodies_or_without_answers_is_accepted(self):
        assert paths("Extensions", callouts=[CALLOUT, HEADERS]) == []
        assert paths("Extensions", callouts=[{**HEADERS, "events": ["RequestHeaders"]}, CALLOUT]) == []

    def test_guardrails_stand_behind_management(self):
        management, guardrails = callouts_of("ApiManagement"), callouts_of("Guardrails")
        assert paths("Extensions", callouts=[*management, *guardrails]) == []
        assert paths("Extensions", callouts=[*guardrails, *management]) == ["args.callouts[1]"]
        assert "args.callouts[0].purpose" in paths("Extensions", callouts=[{**CALLOUT, "purpose": "guard"}])
