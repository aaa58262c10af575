"""What is generated from the types of settings: the JSON Schema that editors use, and the reference page."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from infra.settings import document, schema

ROOT = Path(__file__).parents[3]
FILES = sorted(ROOT.glob("Pulumi.*.yaml"))
MODELINE = "# yaml-language-server: $schema=schemas/settings.schema.json"


@pytest.fixture(scope="module")
def validator():
    found = json.loads(schema.PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def test_the_schema_is_the_generated_one():
    assert schema.PATH.read_text(encoding="utf-8") == schema.text(), "run `make golden` and read the diff"


def test_the_reference_is_the_generated_one():
    assert document.PATH.read_text(encoding="utf-8") == document.text(), "run `make golden` and read the diff"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_environment_is_valid_and_names_the_schema(path, validator):
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == MODELINE
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


def test_editors_see_misspelt_keys_wrong_types_and_missing_values(validator):
    good = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text(encoding="utf-8"))
    for change in (
        lambda config: config.update({"penstock:modles": []}),
        lambda config: config["penstock:gateway"].update({"hostnam": "x"}),
        lambda config: config["penstock:gateway"]["tls"]["certificate"].update({"domains": "x"}),
        lambda config: config["penstock:models"][0].pop("name"),
        lambda config: config["penstock:models"][0]["replicaSets"][0].update({"nodes": "2"}),
        lambda config: config["penstock:network"].update({"name": "wired"}),
        lambda config: config["penstock:privateEndpoints"][0].update({"attachment": "wired"}),
    ):
        raw = copy.deepcopy(good)
        change(raw["config"])
        assert not validator.is_valid(raw)


def test_secrets_and_configuration_of_others_are_allowed(validator):
    config = {"penstock:kubeconfig": {"secure": "v1:abc"}, "gcp:project": "p"}
    assert validator.is_valid({"config": config, "encryptionsalt": "v1:x"})
    assert not validator.is_valid({"config": {"penstock:kubeconfig": {"secret": "x"}}})


def test_every_setting_is_documented():
    missing = []

    def walk(node, path):
        if isinstance(node, dict):
            for name, item in node.get("properties", {}).items():
                if path and not item.get("description") and item.get("type") != "object":
                    missing.append(f"{path}.{name}")
            for name, item in node.items():
                walk(item, f"{path}.{name}".strip("."))

    found = schema.schema()
    walk(found["properties"]["config"], "config")
    walk(found["$defs"], "defs")
    assert missing == []


def test_names_in_descriptions_are_those_of_settings():
    described = schema.schema()["$defs"]["GatewayTls"]["properties"]
    assert set(described) == {"certManagerCerts", "preSharedCerts", "secretNames", "certificate"}
    redirect = schema.schema()["properties"]["config"]["properties"]["penstock:gateway"]["properties"]["redirectHttp"]
    assert "`addressName`" in redirect["description"]
    assert redirect["type"] == "boolean"
