import copy
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.errors import UsageError
from cli.graph.findings import Findings
from cli.graph.model import UNKNOWN, Resource
from cli.graph.schemas import SchemaSet, Verdict
from cli.graph.structural import Walker, with_defaults
from cli.graph.wire import SECRET, SIGNATURE

SPEC = """
type: object
required: [size]
properties:
  size: {type: integer, format: int32, minimum: 1, maximum: 9}
  ratio: {type: number, exclusiveMinimum: true, minimum: 0, multipleOf: 0.5}
  mode: {type: string, enum: [Fast, Slow], default: Fast}
  name: {type: string, minLength: 2, maxLength: 5, pattern: '^[a-z]+$'}
  lit: {type: boolean}
  port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
  maybe: {type: string, nullable: true}
  when: {type: string, format: date-time}
  wait: {type: string, format: duration}
  address: {type: string, format: ipv4}
  data: {type: string, format: byte}
  labels: {type: object, additionalProperties: {type: string}, maxProperties: 2}
  free: {type: object, x-kubernetes-preserve-unknown-fields: true}
  closed: {type: object}
  one: {type: object, oneOf: [{required: [a]}, {required: [b]}], properties: {a: {type: string}, b: {type: string}}}
  other: {type: string, not: {enum: [none]}}
  tags: {type: array, items: {type: string}, x-kubernetes-list-type: set, maxItems: 3}
  doors:
    type: array
    minItems: 1
    x-kubernetes-list-type: map
    x-kubernetes-list-map-keys: [name, side]
    items:
      type: object
      required: [name]
      properties:
        name: {type: string}
        side: {type: string, default: left}
        width: {type: integer}
  limits:
    type: object
    properties:
      low: {type: integer}
      high: {type: integer}
      namespace: {type: string}
      wait: {type: string, format: duration}
    x-kubernetes-validations:
      - rule: '!has(self.low) || !has(self.high) || self.low <= self.high'
        message: low must not exceed high
        fieldPath: .low
      - {rule: "!has(self.__namespace__) || self.__namespace__ != 'kube-system'", message: not there}
      - rule: "!has(self.wait) || self.wait <= duration('1h')"
        messageExpression: "'at most 1h, not ' + string(self.low)"
  frozen:
    type: string
    x-kubernetes-validations: [{rule: self == oldSelf, message: immutable}]
  text:
    type: string
    x-kubernetes-validations: [{rule: 'self.size() < 4', message: too long}]
  inner: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}
  half: {type: number, x-kubernetes-validations: [{rule: self / 2.0 < 1.0, message: below 2}]}
  odd:
    type: string
    x-kubernetes-validations: [{rule: 'self.noSuchFunction()'}]
"""


def crd(spec: dict[str, Any], *, scope: str = "Namespaced", kind: str = "Widget") -> dict[str, Any]:
    root = {"type": "object", "required": ["spec"], "properties": {"metadata": {"type": "object"}, "spec": spec}}
    versions = [
        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}},
        {"name": "v1alpha1", "served": False, "storage": False, "schema": {"openAPIV3Schema": root}},
    ]
    names = {"kind": kind, "plural": f"{kind.lower()}s"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"group": "example.dev", "names": names, "scope": scope, "versions": versions},
    }


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> SchemaSet:
    folder = tmp_path_factory.mktemp("crds")
    (folder / "widget.yaml").write_text(yaml.safe_dump(crd(yaml.safe_load(SPEC))))
    (folder / "nested").mkdir()
    cluster = crd({"type": "object"}, scope="Cluster", kind="Plant")
    (folder / "nested" / "more.yml").write_text(yaml.safe_dump_all([{"kind": "ConfigMap"}, cluster]))
    return SchemaSet.load(folder)


def widget(spec: object, type_: str = "Widget", **fields: Any) -> Resource:
    inputs = {"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec, **fields}
    return Resource(f"kubernetes:example.dev/v1:{type_}", "w", None, True, inputs)


def secret(value: object) -> dict[str, object]:
    return {SIGNATURE: SECRET, "value": value}


VALID: list[dict[str, Any]] = [
    {"size": 1},
    {"size": 9, "ratio": 1.5, "mode": "Slow", "name": "abc", "lit": False, "port": "http"},
    {"size": 1, "port": 80, "maybe": None, "when": "2026-01-31T12:00:00Z", "wait": "1h30m", "address": "10.0.0.1"},
    {"size": 1, "labels": {"a/b": "c"}, "free": {"any": [1, {"x": None}]}, "closed": {}, "one": {"a": "x"}},
    {"size": 1, "inner": {"apiVersion": "v1", "kind": "X", "metadata": {"labels": {"a": "b"}}, "spec": {}}, "half": 1},
    {"size": 1, "tags": ["a", "b"], "other": "some", "data": "aGk="},
    {"size": 1, "doors": [{"name": "a"}, {"name": "a", "side": "right"}]},
    {"size": 1, "limits": {"low": 1, "high": 1, "namespace": "x", "wait": "30m"}, "frozen": "x", "text": "abc"},
]

INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "spec.size", "expected an integer. Add this required field"),
    ({"size": "1"}, "spec.size", 'got "1", expected an integer'),
    ({"size": 1.5}, "spec.size", "expected an integer"),
    ({"size": True}, "spec.size", "got true, expected an integer"),
    ({"size": 0}, "spec.size", "at least 1"),
    ({"size": 10}, "spec.size", "at most 9"),
    ({"size": None}, "spec.size", "got null"),
    ({"size": 1, "ratio": 0}, "spec.ratio", "more than 0"),
    ({"size": 1, "ratio": 0.7}, "spec.ratio", "a multiple of 0.5"),
    ({"size": 1, "mode": "Fats"}, "spec.mode", "Did you mean `Fast`"),
    ({"size": 1, "name": "a"}, "spec.name", "at least 2 characters instead of 1"),
    ({"size": 1, "name": "abcdef"}, "spec.name", "at most 5 characters instead of 6"),
    ({"size": 1, "name": "abc\n"}, "spec.name", "matches `^[a-z]+$`"),
    ({"size": 1, "lit": "true"}, "spec.lit", "expected true or false"),
    ({"size": 1, "port": 1.5}, "spec.port", "an integer or a string"),
    ({"size": 1, "when": "yesterday"}, "spec.when", "a date and time"),
    ({"size": 1, "when": "2026-02-31T12:00:00Z"}, "spec.when", "a date and time"),
    ({"size": 1, "wait": "90"}, "spec.wait", "a duration"),
    ({"size": 1, "address": "::1"}, "spec.address", "an IPv4 address"),
    ({"size": 1, "data": "?"}, "spec.data", "base64"),
    ({"size": 1, "labels": {"a.b": 1}}, "spec.labels['a.b']", "a string"),
    ({"size": 1, "labels": {"a": "", "b": "", "c": ""}}, "spec.labels", "at most 2 fields instead of 3"),
    ({"size": 1, "closed": {"a": 1}}, "spec.closed.a", "no such field"),
    ({"size": 1, "szie": 1}, "spec.szie", "Did you mean `size`"),
    ({"size": 1, "one": {}}, "spec.one", "exactly one of the alternatives (required a; required b)"),
    ({"size": 1, "one": {"a": "", "b": ""}}, "spec.one", "exactly one"),
    ({"size": 1, "other": "none"}, "spec.other", "a value other than enum none"),
    ({"size": 1, "tags": ["a", "b", "a"]}, "spec.tags[2]", "another value than spec.tags[0] has"),
    ({"size": 1, "doors": []}, "spec.doors", "at least 1 item instead of 0"),
    ({"size": 1, "doors": [{"name": "a"}, {"name": "a", "side": "left"}]}, "spec.doors[1]", "name and side"),
    ({"size": 1, "doors": [{"name": "a", "widht": 2}]}, "spec.doors[0].widht", "Did you mean `width`"),
    ({"size": 1, "limits": {"low": 2, "high": 1}}, "spec.limits.low", "low must not exceed high"),
    ({"size": 1, "limits": {"namespace": "kube-system"}}, "spec.limits", "not there"),
    ({"size": 1, "limits": {"low": 7, "wait": "2h"}}, "spec.limits", "at most 1h, not 7"),
    ({"size": 1, "text": "abcd"}, "spec.text", "too long"),
    ({"size": 1, "half": 2}, "spec.half", "below 2"),
    ({"size": 1, "inner": {"metadata": {"lables": {}}}}, "spec.inner.metadata.lables", "Did you mean `labels`"),
]


def only_error(verdict: Verdict) -> tuple[str, str]:
    assert verdict.status == "invalid"
    assert len(verdict.errors) == 1, [str(error) for error in verdict.errors]
    return verdict.errors[0].path, str(verdict.errors[0])


@pytest.mark.parametrize("spec", VALID, ids=str)
def test_valid_objects_pass(schemas: SchemaSet, spec: dict[str, Any]) -> None:
    verdict = schemas.verdict(widget(spec))
    assert (verdict.status, verdict.errors, verdict.undecided, verdict.not_evaluated) == ("ok", (), (), ())


@pytest.mark.parametrize(("spec", "path", "text"), INVALID, ids=lambda value: str(value)[:60])
def test_each_violation_names_path_value_and_fix(
    schemas: SchemaSet, spec: dict[str, Any], path: str, text: str
) -> None:
    found, message = only_error(schemas.verdict(widget(spec)))
    assert found == path
    assert text in message


def test_all_errors_come_at_once(schemas: SchemaSet) -> None:
    verdict = schemas.verdict(widget({"size": 0, "mode": "x", "nope": 1, "limits": {"low": 2, "high": 1}}))
    assert [error.path for error in verdict.errors] == ["spec.size", "spec.mode", "spec.nope", "spec.limits.low"]


def test_fields_outside_spec_are_checked_too(schemas: SchemaSet) -> None:
    assert only_error(schemas.verdict(widget({"size": 1}, sepc={})))[0] == "sepc"
    wrong = widget({"size": 1}, metadata={"name": "w", "lables": {}})
    assert "Did you mean `labels`" in only_error(schemas.verdict(wrong))[1]
    wrong = widget({"size": 1}, metadata={"name": "w", "labels": {"a": 1}})
    assert only_error(schemas.verdict(wrong))[0] == "metadata.labels.a"


def test_versions_that_are_not_served_are_refused(schemas: SchemaSet) -> None:
    for version in ("v1alpha1", "v2"):
        path, message = only_error(schemas.verdict(widget({"size": 1}, apiVersion=f"example.dev/{version}")))
        assert path == "apiVersion"
        assert "a served version: example.dev/v1" in message


def test_namespaces_of_cluster_wide_kinds_are_refused(schemas: SchemaSet) -> None:
    plant = widget({}, kind="Plant", metadata={"name": "p", "namespace": "n"})
    assert only_error(schemas.verdict(plant))[0] == "metadata.namespace"


@pytest.mark.parametrize(
    ("api_version", "kind", "type_", "status"),
    [
        ("v1", "ConfigMap", "kubernetes:core/v1:ConfigMap", "skipped"),
        ("apps/v1", "Deployment", "kubernetes:apps/v1:Deployment", "skipped"),
        ("rbac.authorization.k8s.io/v1", "Role", "kubernetes:rbac.authorization.k8s.io/v1:Role", "skipped"),
        ("gateway.networking.k8s.io/v1", "Gateway", "kubernetes:gateway.networking.k8s.io/v1:Gateway", "no-schema"),
        ("example.dev/v1", "Other", "kubernetes:example.dev/v1:Other", "no-schema"),
        ("example.dev/v1", "Widget", "gcp:index:Widget", "skipped"),
    ],
)
def test_what_is_not_judged_says_why(schemas: SchemaSet, api_version: str, kind: str, type_: str, status: str) -> None:
    resource = Resource(type_, "x", None, True, {"apiVersion": api_version, "kind": kind})
    assert schemas.verdict(resource).status == status


def test_unknowns_are_accepted_and_reported(schemas: SchemaSet) -> None:
    verdict = schemas.verdict(widget({"size": UNKNOWN, "limits": {"low": UNKNOWN, "high": 1}}))
    assert verdict.status == "ok"
    assert "spec.size: not known before the update" in verdict.undecided
    assert any(item.startswith("spec.limits: rule") for item in verdict.undecided)
    whole = schemas.verdict(widget(UNKNOWN))
    assert whole.undecided == ("spec: not known before the update",)
    alternatives = schemas.verdict(widget({"size": 1, "one": UNKNOWN, "other": UNKNOWN, "port": UNKNOWN}))
    assert alternatives.status == "ok"


def test_secrets_are_checked_but_never_shown(schemas: SchemaSet) -> None:
    spec = {"size": secret("hush-1"), "name": secret("HUSH"), "mode": secret("Fasthush"), "lit": secret(True)}
    verdict = schemas.verdict(widget({**spec, "nope": {"deep": secret("hush")}}))
    assert [error.path for error in verdict.errors] == ["spec.size", "spec.name", "spec.mode", "spec.nope"]
    assert "hush" not in repr(verdict.errors).lower()
    assert verdict.errors[0].value == "[secret]"
    messages = schemas.verdict(widget({"size": 1, "limits": {"low": secret(7), "wait": "2h"}}))
    assert "7" not in str(messages.errors[0])


def test_transition_rules_do_not_run_on_creation(schemas: SchemaSet) -> None:
    assert schemas.verdict(widget({"size": 1, "frozen": "x"})).not_evaluated == ()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [({"text": "äää"}, "counts bytes"), ({"odd": "x"}, "noSuchFunction")],
)
def test_rules_that_cannot_run_are_named(schemas: SchemaSet, spec: dict[str, Any], reason: str) -> None:
    verdict = schemas.verdict(widget({"size": 1, **spec}))
    assert verdict.status == "ok"
    assert len(verdict.not_evaluated) == 1
    assert reason in verdict.not_evaluated[0]


def test_rules_are_named_without_the_package(schemas: SchemaSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.graph.rules.cel", None)
    verdict = schemas.verdict(widget({"size": 1, "text": "abcd"}))
    assert verdict.status == "ok"
    assert verdict.not_evaluated == (
        "spec.text: rule `self.size() < 4` (the package `common-expression-language` is not installed)",
    )


def test_patches_may_lack_required_fields(schemas: SchemaSet) -> None:
    verdict = schemas.verdict(widget({"text": "abcd"}, type_="WidgetPatch"))
    assert verdict.status == "ok"
    assert verdict.not_evaluated == ("spec.text: rule `self.size() < 4` (a patch)",)
    assert schemas.verdict(widget({"nope": 1}, type_="WidgetPatch")).status == "invalid"


def test_defaults_are_filled_in_without_touching_the_input() -> None:
    schema = yaml.safe_load(SPEC)
    spec = {"mode": None, "doors": [{"name": "a"}]}
    before = copy.deepcopy(spec)
    assert with_defaults(spec, schema) == {"mode": "Fast", "doors": [{"name": "a", "side": "left"}]}
    assert spec == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a: [", "cannot read"),
        ("kind: CustomResourceDefinition", "is not a CRD"),
        (
            "kind: CustomResourceDefinition\nspec: {group: g, names: {kind: K}, scope: Cluster, versions: [{}]}",
            "missing",
        ),
    ],
)
def test_unreadable_schema_files_are_named(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(UsageError, match=text) as caught:
        SchemaSet.load(tmp_path)
    assert "bad.yaml" in str(caught.value)


def test_missing_folders_and_conflicts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        SchemaSet.load(tmp_path / "none")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(crd({"type": "object"})))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(crd({"type": "object"})))
    assert len(SchemaSet.load(tmp_path)) == 1  # the same twice is harmless
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(crd({"type": "string"})))
    with pytest.raises(UsageError, match="both define Widget"):
        SchemaSet.load(tmp_path)


# The structural part against an independent implementation: the same keywords under JSON Schema.

KEYWORDS = yaml.safe_load(
    textwrap.dedent("""
    - {type: object, required: [a], properties: {a: {type: integer, minimum: 0}, b: {type: string, maxLength: 2}}}
    - {type: object, additionalProperties: {type: array, items: {type: number, maximum: 2}, minItems: 1}}
    - {type: object, minProperties: 1, maxProperties: 2, additionalProperties: {type: boolean}}
    - type: object
      properties:
        a: {type: string, enum: [x, 'y']}
        b:
          type: object
          anyOf: [{required: [a]}, {required: [b]}]
          properties: {a: {type: integer}, b: {type: string}}
        c: {type: string, not: {pattern: '^x'}}
    - {type: array, uniqueItems: true, maxItems: 3, items: {type: string, pattern: '^[xy]*$'}}
    - type: object
      properties: {a: {type: integer, oneOf: [{minimum: 1}, {maximum: 1}]}, b: {type: array, items: {type: object}}}
    """)
)
SCALARS = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 2.5, "", "x", "y", "xy", "xyz"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def closed(schema: Any) -> Any:
    """Return `schema` for JSON Schema: unknown fields refused wherever a structural schema prunes them."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    if schema.get("type") == "object":
        result["properties"] = {name: closed(sub) for name, sub in schema.get("properties", {}).items()}
        result["additionalProperties"] = closed(schema.get("additionalProperties", False))
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return result


@settings(max_examples=400, derandomize=True, deadline=None)
@given(schema=st.sampled_from(KEYWORDS), value=VALUES)
def test_structure_agrees_with_json_schema(schema: dict[str, Any], value: object) -> None:
    walker = Walker(Findings())
    walker.walk(value, schema, "")
    # Python takes True for 1 in a set of unique items and 2.0 for an integer; neither occurs in these values.
    expected = jsonschema.Draft202012Validator(closed(schema)).is_valid(value)
    assert (not walker.findings.errors) == expected, walker.findings.errors


@settings(max_examples=200, derandomize=True, deadline=None)
@given(spec=VALUES)
def test_arbitrary_specs_never_crash(spec: object) -> None:
    schema_set = SchemaSet()
    schema_set._add(crd(yaml.safe_load(SPEC)), Path("inline"))
    assert schema_set.verdict(widget(spec)).status in ("ok", "invalid")
