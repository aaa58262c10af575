"""Reading the Gateway's annotation, and choosing among forwarding rules; without Pulumi."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.manifests.forwarding_rules import (
    ANNOTATION,
    PublicationError,
    Rule,
    annotated,
    choose,
    none_found,
    path,
)

REGION, ADDRESS = "us-central1", "10.0.0.7"
NAME = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
FORMS = (
    "{name}",
    " {name} ",
    "/projects/12/regions/us-central1/forwardingRules/{name}",
    "projects/p-1/regions/us-central1/forwardingRules/{name}",
    "https://www.googleapis.com/compute/v1/projects/p-1/regions/us-central1/forwardingRules/{name}",
)
CHECK = settings(max_examples=200, derandomize=True, deadline=None)


def names(text):
    return annotated({"annotations": {ANNOTATION: text}}, REGION)


def rule(name="a", port="443-443", address=ADDRESS, **changes):
    return Rule(name=name, ip_address=address, port_range=port, **changes)


@pytest.mark.parametrize(
    "metadata", [{}, {"annotations": None}, {"annotations": {}}, {"annotations": {ANNOTATION: None}}]
)
def test_no_annotation_lists_nothing(metadata):
    assert annotated(metadata, REGION) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (",,", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a,a,/projects/1/regions/us-central1/forwardingRules/a", ["a"]),
        ("/projects/1/regions/europe-west4/forwardingRules/a,b", ["b"]),
        ("/projects/1/global/forwardingRules/a", []),
        ("projects/1/regions/us-central1/targetHttpProxies/a", []),
        ("a;b", []),
        ("A,-a,a-,1a," + "a" * 64, []),
        ("a" * 63, ["a" * 63]),
        ("a\nb,c\n", ["c"]),
    ],
)
def test_annotation(text, found):
    assert names(text) == found


@CHECK
@given(st.lists(st.tuples(NAME, st.sampled_from(FORMS)), max_size=6))
def test_every_form_of_every_name_is_read(entries):
    text = ",".join(form.format(name=name) for name, form in entries)
    assert names(text) == list(dict.fromkeys(name for name, _ in entries))


@CHECK
@given(st.text(max_size=200) | st.text(alphabet="abz019-/,:. forwardingRulesprojectsregions", max_size=200))
def test_whatever_is_written_there_only_names_come_out(text):
    """They become part of a URI, so nothing else may ever get through."""
    for name in names(text):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)
        assert name in text


@CHECK
@given(st.dictionaries(st.text(max_size=5), st.none() | st.text() | st.integers()), st.text(max_size=20))
def test_metadata_of_any_kind_is_read(annotations, region):
    assert isinstance(annotated({"annotations": annotations}, region), list)


@pytest.mark.parametrize(
    ("ports", "port", "covered"),
    [
        ("443-443", 443, True),
        ("443", 443, True),
        ("80-80", 443, False),
        ("1-65535", 443, True),
        ("444-500", 443, False),
        ("", 443, False),
        ("all", 443, False),
        ("443-", 443, True),
    ],
)
def test_port_ranges(ports, port, covered):
    assert rule(port=ports).covers(port) is covered


def test_the_rule_on_address_and_port_is_chosen():
    rules = [rule("http", "80-80"), rule("https"), rule("foreign", address="10.0.0.8"), rule("l4", scheme="INTERNAL")]
    assert choose(rules, [], ADDRESS, 443) == "https"
    assert choose(rules, ["http", "https"], ADDRESS, 443) == "https"
    assert choose(rules, ["http", "https"], "", 443) == "https"
    assert choose(rules, ["http", "https"], ADDRESS, 80) == "http"
    assert choose(rules, [], ADDRESS, 8443) is None


def test_the_annotation_decides_where_networks_share_an_address():
    rules = [rule("mine"), rule("of-another-network")]
    assert choose(rules, ["mine"], ADDRESS, 443) == "mine"
    with pytest.raises(PublicationError, match=r"2 forwarding rules serve port 443 of 10\.0\.0\.7: mine, of-another"):
        choose(rules, [], ADDRESS, 443)


def test_without_an_address_only_listed_rules_count():
    assert choose([rule("foreign")], ["mine"], "", 443) is None
    with pytest.raises(PublicationError, match=r"forwarding_rule"):
        choose([rule("only")], [], "", 443)


def test_a_stale_annotation_is_only_a_hint():
    assert choose([rule("new")], ["old"], ADDRESS, 443) == "new"


@CHECK
@given(
    st.lists(
        st.builds(
            Rule,
            name=NAME,
            ip_address=st.sampled_from([ADDRESS, "10.0.0.8"]),
            port_range=st.sampled_from(["80-80", "443-443", "1-65535", ""]),
            scheme=st.sampled_from(["INTERNAL_MANAGED", "INTERNAL", ""]),
        ),
        max_size=6,
        unique_by=lambda item: item.name,
    ),
    st.lists(NAME, max_size=3),
)
def test_what_is_chosen_fits_and_the_order_of_the_list_does_not_matter(rules, listed):
    def outcome(candidates):
        try:
            return choose(candidates, listed, ADDRESS, 443)
        except PublicationError as error:
            return str(error)

    assert outcome(rules) == outcome(rules[::-1])
    chosen = [item for item in rules if item.name == outcome(rules)]
    assert all(item.ip_address == ADDRESS and item.covers(443) and item.scheme == "INTERNAL_MANAGED" for item in chosen)


def test_paths_and_errors():
    assert path("p-1", REGION, "a") == "projects/p-1/regions/us-central1/forwardingRules/a"
    error = str(none_found(["a"], "", 443, "p-1", REGION))
    assert "no forwarding rule of p-1 in us-central1 serves port 443 of the Gateway" in error
    assert "annotation lists a" in error
    assert "annotation" not in str(none_found([], ADDRESS, 443, "p-1", REGION))
