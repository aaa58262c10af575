"""Settings of the policy `validation`: unknown fields, documents of products, and hostile bodies and documents."""

import time
from typing import Any

import orjson
import pytest
import yaml

from services.apimgmt.openapi.documents import DocumentError
from services.apimgmt.policies.validation import ValidationSettings, problems
from tests.unit.apimgmt.validation.calls import CHAT, call, chat, error, policy

PART = {"type": "text", "text": "x"}


def document(schema: Any, version: str = "3.1.0", **components: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    paths = {CHAT: {"post": {"requestBody": {"content": content}}}}
    return {"openapi": version, "info": {}, "paths": paths, "components": {"schemas": components}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"colour": 1}, "colour"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood"),
        ({"messages": [{"role": "user", "content": [{**PART, "font": 1}]}]}, "messages[0].content[0].font"),
        ({"stream": True, "stream_options": {"include_usage": True, "x": 1}}, "stream_options.x"),
        ({"metadata": {"any": "name"}, "chat_template_kwargs": {"any": 1}}, None),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"any": 1}}}]}, None),
    ],
)
def test_unknown_fields_are_passed_refused_or_removed(fields: dict[str, Any], param: str | None) -> None:
    body = chat(**fields)
    assert error(body) is None
    found = error(body, made=policy(unknownFields="refuse"))
    assert (found and (found["param"], found["code"])) == (param and (param, "unknown_parameter"))
    before = orjson.dumps(body)
    asked = call(body)
    assert policy(unknownFields="remove").check(asked) is None
    assert orjson.dumps(body) == before, "the parsed body is shared: only a copy may change"
    assert (asked.edited is not None) == (param is not None)
    if asked.edited is not None and param is not None:
        assert error(dict(asked.edited), made=policy(unknownFields="refuse")) is None
        assert param.rpartition(".")[2].encode() not in orjson.dumps(asked.edited)


def test_remove_still_refuses_what_is_wrong() -> None:
    found = error(chat(colour=1, temperature=9), made=policy(unknownFields="remove"))
    assert found is not None
    assert found["param"] == "temperature"


SMALL = document(
    {"allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"level": {"type": "integer", "maximum": 3}}}]},
    Base={"type": "object", "required": ["model"], "properties": {"model": {"enum": ["m"]}}},
)


@pytest.mark.parametrize("how", ["object", "yaml", "json", "map"])
def test_documents_of_products_decide_for_their_paths(how: str) -> None:
    text = yaml.safe_dump(SMALL) if how == "yaml" else orjson.dumps(SMALL).decode()
    given = {"document": "docs/own"} if how == "map" else {"schema": SMALL if how == "object" else text}
    made = policy({"docs/own": text}, **given)
    assert error({"model": "m", "level": 3}, made=made) is None
    found = error({"model": "m", "level": 4}, made=made)
    assert found is not None
    assert found["param"] == "level"
    assert error({"model": "m"}, "/v1/embeddings", made) is not None, "other paths: our document"


def test_parts_of_a_whole_are_closed_together() -> None:
    made = policy(schema=SMALL, unknownFields="refuse")
    assert error({"model": "m", "level": 3}, made=made) is None
    found = error({"model": "m", "level": 3, "x": 1}, made=made)
    assert found is not None
    assert (found["param"], found["code"]) == ("x", "unknown_parameter")
    asked = call({"model": "m", "level": 3, "x": 1})
    assert policy(schema=SMALL, unknownFields="remove").check(asked) is None
    assert asked.edited == {"model": "m", "level": 3}


def test_openapi_3_0_is_read_in_its_own_words() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "nullable": True, "enum": ["x"]},
            "b": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
            "c": {"$ref": "#/components/schemas/C", "minLength": 9},
        },
    }
    made = policy(schema=document(schema, "3.0.3", C={"type": "string"}))
    assert error({"a": None, "b": 0.1, "c": "short"}, made=made) is None
    for body, param in (({"b": 0}, "b"), ({"a": "y"}, "a"), ({"c": None}, "c")):
        found = error(body, made=made)
        assert found is not None
        assert found["param"] == param


@pytest.mark.parametrize(
    ("schema", "components", "said"),
    [
        ({"$ref": "http://127.0.0.1:1/x.json"}, {}, "outside of the document, which is never fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, {}, "properties.a.$ref: refers to 'file:"),
        ({"$ref": "#/components/schemas/No"}, {}, "which is not there; add it"),
        ({"$ref": "#/components/schemas/A"}, {"A": {"$ref": "#/components/schemas/A"}}, "contains itself"),
        (
            {"$ref": "#/components/schemas/A"},
            {"A": {"anyOf": [{"$ref": "#/components/schemas/A"}, {}]}},
            "contains itself",
        ),
        ({"type": "strin"}, {}, "type: "),
        ({"properties": 5}, {}, "properties: "),
        ({"pattern": "(?=x)"}, {}, "look-around"),
        ({"pattern": "(a{1000}){1000}"}, {}, "1 MiB"),
        ({"$dynamicRef": "#x"}, {}, "$dynamicRef: not supported"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, {}, "2020-12"),
        ({"properties": {"a": 5}}, {}, "properties.a: expected a schema"),
    ],
)
def test_documents_that_cannot_work_are_refused_when_saved(schema: Any, components: Any, said: str) -> None:
    given = document(schema, **components)
    with pytest.raises(ValueError, match=r"^schema: ") as caught:
        policy(schema=given)
    assert said in str(caught.value)
    settings = ValidationSettings.model_validate({"schema": given})
    assert "\n".join(problems(settings, lambda a, b: None)) == str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a: [", "expected JSON or YAML"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("a: 1\na: 2", "stands twice"),
        ("5", "expected an object"),
        ("openapi: 2.0.0\npaths: {}", "expected a version 3.0.x or 3.1.x"),
        ("openapi: 3.1.0\npaths: {/x: {post: {}}}", "content.application/json.schema"),
        ("{1: 2}", "no text"),
        ("x" * (1024 * 1024 + 1), "longer than"),
        ("[" * 5000, "expected"),
        ('{"a":' * 70 + "1" + "}" * 70, "deeper than"),
    ],
)
def test_texts_that_are_no_document_are_refused(given: str, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        policy(schema=given)
    assert said in str(caught.value)


@pytest.mark.parametrize(("entry", "said"), [("docs/none", "there is no entry"), ("docs", "expected map/entry")])
def test_missing_entries_are_named(entry: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy(document=entry)


def test_only_one_document() -> None:
    with pytest.raises(ValueError, match="keep one of them"):
        policy(document="a/b", schema=SMALL)


def test_patterns_take_linear_time() -> None:
    made = policy(schema=document({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}))
    began = time.perf_counter()
    assert error({"a": "a" * 200_000 + "!"}, made=made) is not None
    assert time.perf_counter() - began < 5  # backtracking would take longer than the universe lasts


@pytest.mark.parametrize("mode", ["allow", "refuse", "remove"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            chat(messages=[{"role": "user", "content": [PART] * 30_000 + [{"type": "text"}]}]),
            "messages[0].content[30000].text",
        ),
        (chat(messages=[{"role": "z"}] * 30_000), "messages[0].role"),
        (
            chat(messages=[{"role": "user", "content": [{"type": "text", "x": 1}] * 30_000}]),
            "messages[0].content[0].text",
        ),
    ],
)
def test_errors_of_long_bodies_are_found_soon(body: Any, param: str, mode: str) -> None:
    began = time.perf_counter()
    found = error(body, made=policy(unknownFields=mode))
    assert found is not None
    assert found["param"] == param
    assert time.perf_counter() - began < 5  # minutes without the excerpt
