"""Slugs and their limits."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock import pool_name, slug
from penstock._naming import check_label


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("llama-3.1-8b", "llama-3-1-8b"),
        ("gemma-3-12b", "gemma-3-12b"),
        ("Qwen/Qwen3_30B", "qwen-qwen3-30b"),
        ("..a..b..", "a-b"),
        ("", ""),
        ("日本", ""),
    ],
)
def test_slug(model, expected):
    assert slug(model) == expected


def test_pool_name_joins_slug_and_set():
    assert pool_name("llama-3.1-8b", "a") == "llama-3-1-8b-a"


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text())
def test_a_slug_is_empty_or_a_label_but_for_its_first_character_and_length(text):
    assert re.fullmatch(r"|[a-z0-9]([-a-z0-9]*[a-z0-9])?", slug(text))


@pytest.mark.parametrize(
    ("value", "suffix", "wrong"),
    [
        ("a" * 63, "", False),
        ("a" * 64, "", True),
        ("a" * 54, "-replicas", False),
        ("a" * 55, "-replicas", True),
        ("1a", "", True),
        ("a-", "", True),
        ("A", "", True),
        ("", "", True),
        ("a.b", "", True),
        ("a\n", "", True),
    ],
)
def test_labels_are_checked_with_their_suffix(value, suffix, wrong):
    assert bool(list(check_label("p", value, suffix))) is wrong
