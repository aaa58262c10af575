"""How settings take arguments over, and how raw data is read in their shape."""

from typing import Annotated, NotRequired, TypedDict

import pulumi
import pytest

from infra.settings.marks import Also, Filled, Hidden, Secret, Wired, fields
from infra.settings.validate import Report, validate


class Inner(TypedDict):
    size: int
    colour_name: NotRequired[str]


class Outer(TypedDict):
    name: str
    inner: NotRequired[Inner]
    many: NotRequired[list[Inner]]
    tags: NotRequired[dict[str, str]]
    link: pulumi.Input[str]


class More(TypedDict):
    name: int
    weight: float


def read(shape, raw):
    report = Report()
    value = validate(shape, raw, report)
    return value, {error.path: error.expected for error in report.errors}


def test_wired_fields_are_no_settings_and_filled_ones_may_be_left_out():
    shape = Annotated[Outer, Wired("link"), Filled("name")]
    assert "link" not in fields(shape)
    assert read(shape, {}) == ({}, {})
    _, errors = read(shape, {"link": "x"})
    assert errors == {"link": "a known key"}


def test_marks_reach_into_nested_maps():
    shape = Annotated[Outer, Wired("link", "inner.colour_name"), Filled("inner.size")]
    assert read(shape, {"name": "a", "inner": {}}) == ({"name": "a", "inner": {}}, {})
    _, errors = read(shape, {"name": "a", "inner": {"colourName": "x"}})
    assert errors == {"inner.colourName": "a known key"}


def test_other_arguments_may_stand_in_the_same_map_and_its_own_fields_win():
    found = fields(Annotated[Outer, Also(More)])
    assert (found["name"].shape, found["name"].owner) == (str, Outer)
    assert (found["weight"].required, found["weight"].owner) == (False, More)


def test_a_mark_that_names_no_field_fails():
    with pytest.raises(KeyError):
        fields(Annotated[Outer, Wired("lnk")])


def test_keys_are_camel_case_numbers_are_mended_and_null_is_nothing():
    raw = {"name": "a", "link": "b", "inner": {"size": 2.0, "colourName": None}, "tags": {"some-key": "v"}}
    value, errors = read(Outer, raw)
    assert (value, errors) == ({"name": "a", "link": "b", "inner": {"size": 2}, "tags": {"some-key": "v"}}, {})


def test_everything_wrong_is_reported_by_its_path_and_replaced():
    raw = {"name": 5, "inner": {"colourName": True}, "many": [{"size": "x"}, 7], "tags": {"k": 1}, "nam": 1}
    value, errors = read(Outer, raw)
    assert errors == {
        "nam": "a known key",
        "name": "a string",
        "inner.colourName": "a string",
        "inner.size": "a value",
        "many[0].size": "a whole number",
        "many[1]": "a map",
        "tags.k": "a string",
        "link": "a value",
    }
    assert value["many"] == [{"size": 1}, {"size": 1}]
    assert isinstance(value["link"], str)


def test_secrets_are_never_shown():
    shape = Annotated[str, Secret()]
    value, _ = read(shape, "hush")
    assert isinstance(value, Hidden)
    assert "hush" not in repr({"key": value})
    report = Report()
    validate(shape, ["hush"], report, "key")
    assert "hush" not in str(report.errors[0])
