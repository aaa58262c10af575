"""GKE versions: comparison, and the error that names feature and version."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.manifests import versions
from penstock.manifests.accelerators import CATALOGUE
from penstock.manifests.versions import FEATURES, GkeVersion

NUMBERS = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 10**8))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(NUMBERS, NUMBERS)
def test_versions_compare_number_by_number(first, second):
    one, other = GkeVersion(*first), GkeVersion(*second)
    assert GkeVersion.parse(str(one)) == one
    assert (one < other) == (first < second)


def test_a_longer_number_is_no_smaller_one():
    assert GkeVersion.parse("1.9.0-gke.9") < GkeVersion.parse("1.10.0-gke.10")
    assert GkeVersion.parse("1.35.2-gke.999999") < GkeVersion.parse("1.35.2-gke.1842000")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_any_text_is_a_version_or_refused(text):
    found = GkeVersion.parse(text)
    errors = list(versions.problems("args.min_version", text))
    assert (found is None) == bool(errors)


@pytest.mark.parametrize(
    "text",
    ["", "latest", "1.35", "1.35.2", "1.35.2-gke", "v1.35.2-gke.1", "1.35.2-gke.1 ", "1.35.2-gke.-1", "1.35.2-gke.٣"],
)
def test_aliases_and_parts_of_versions_are_refused(text):
    (error,) = versions.problems("args.min_version", text)
    assert (error.path, error.value) == ("args.min_version", text)
    assert "1.35.2-gke.1842000" in error.expected
    assert "get-server-config" in error.fix


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_each_feature_has_a_version_and_refuses_the_one_before(name):
    needed = GkeVersion.parse(FEATURES[name].minimum)
    assert needed, FEATURES[name].minimum
    assert FEATURES[name].source
    assert list(versions.problems("path", FEATURES[name].minimum, [name])) == []
    older = GkeVersion(needed.major, needed.minor - 1, 99, 10**8)
    (error,) = versions.problems("path", str(older), [name])
    assert f"feature `{name}`" in error.expected
    assert FEATURES[name].minimum in error.expected
    assert FEATURES[name].minimum in error.fix


@pytest.mark.parametrize("name", [name for name, item in CATALOGUE.items() if item.minimum_version])
def test_each_accelerator_refuses_an_older_version(name):
    (error,) = versions.problems("path", "1.30.0-gke.0", [], [name])
    assert f"accelerator `{name}`" in error.expected
    assert list(versions.problems("path", CATALOGUE[name].minimum_version, [], [name])) == []


def test_everything_too_new_is_named_at_once():
    found = list(versions.problems("path", "1.30.0-gke.0", ["dranet", "apigee"], ["b200", "l4"]))
    assert [error.expected.split("`")[1] for error in found] == ["dranet", "apigee", "b200"]


def test_a_feature_of_one_channel_is_refused_in_others():
    (error,) = versions.channel_problems("args.release_channel", "REGULAR", ["autoscaling-metric", "dranet"])
    assert (error.path, error.value) == ("args.release_channel", "REGULAR")
    assert "RAPID" in error.fix
    assert list(versions.channel_problems("path", "RAPID", ["autoscaling-metric"])) == []


def test_unknown_features_are_named_with_a_suggestion():
    (error,) = versions.check_features("args.features", ["dranet", "dranett"])
    assert (error.path, error.value) == ("args.features[1]", "dranett")
    assert "`dranet`" in error.fix
