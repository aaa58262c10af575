"""Config files: every problem at once, each with path, value, expectation and fix."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from services.extproc.config import ConfigError, ConfigModel, load_config, parse_config


class Model(ConfigModel):
    name: str
    max_tokens: int = 1


class Root(ConfigModel):
    models: tuple[Model, ...] = ()
    max_body_bytes: int = Field(10, gt=0)


def test_camel_case_and_defaults() -> None:
    root = parse_config("models: [{name: a, maxTokens: 3}]\nmaxBodyBytes: 5", Root)
    assert (root.models[0].max_tokens, root.max_body_bytes) == (3, 5)
    assert parse_config("", Root) == Root()


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("models: [{nam: a}, {name: 3}]\nmaxBodyByte: 5\nmaxBodyBytes: -1", Root, "conf.yaml")
    text = str(caught.value)
    assert text.startswith("conf.yaml: 5 problems")
    assert "models[0].nam: unknown key (found 'a'); did you mean 'name'?" in text
    assert "models[0].name: required key is missing; add 'name'" in text
    assert "models[1].name: input should be a valid string (found 3)" in text
    assert "did you mean 'maxBodyBytes'?" in text
    assert "maxBodyBytes: input should be greater than 0 (found -1)" in text


def test_repeated_key() -> None:
    with pytest.raises(ConfigError, match="maxBodyBytes: key appears twice"):
        parse_config("maxBodyBytes: 1\nmaxBodyBytes: 2", Root)


@pytest.mark.parametrize("text", ["{", "a: b: c", "[1", "!!python/object:os.system {}", "- 1", "text", "{a: &x [*x]}"])
def test_what_is_no_config(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text, Root)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml", Root)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "latin.yaml", Root)
    (tmp_path / "good.yaml").write_text("maxBodyBytes: 7")
    assert load_config(tmp_path / "good.yaml", Root).max_body_bytes == 7


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="{}[]:,-&*!a1\n \"'", max_size=60))
def test_any_text_parses_or_is_a_config_error(text: str) -> None:
    try:
        parse_config(text, Root)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - both outcomes are right
