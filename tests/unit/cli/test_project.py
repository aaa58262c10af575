from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.errors import UsageError
from cli.graph.model import UNKNOWN
from cli.graph.project import environments, find_root, load_project

PROJECT = """
name: shop
runtime: python
config:
  size: {type: integer, default: 3}
  names: {type: array, items: {type: string}, default: [a]}
  open: {type: boolean}
  title: {type: string, secret: true}
  shorthand: fixed
  gcp:project: {value: p-1}
"""


def write(folder: Path, project: str = PROJECT, **stacks: str) -> Path:
    (folder / "Pulumi.yaml").write_text(project)
    for name, content in stacks.items():
        (folder / f"Pulumi.{name}.yaml").write_text(content)
    return folder


def test_defaults_values_and_secrets_are_merged(tmp_path: Path) -> None:
    stack = """
    config:
      shop:open: true
      title: hello
      shop:names: [b, {c: 1}]
      other:key: "007"
      shop:nothing: null
      shop:ratio: 0.5
      shop:day: 2026-01-31
      shop:token: {secure: v1:abc}
      shop:account: {user: me, password: {secure: v1:def}, list: [{secure: v1:ghi}]}
    """
    project = load_project("dev", write(tmp_path, dev=stack))
    assert project.name == "shop"
    assert project.config == {
        "shop:size": "3",
        "shop:names": '["b", {"c": 1}]',
        "shop:open": "true",
        "shop:title": "hello",
        "shop:shorthand": "fixed",
        "gcp:project": "p-1",
        "other:key": "007",
        "shop:ratio": "0.5",
        "shop:day": '"2026-01-31"',
        "shop:token": UNKNOWN,
        "shop:account": f'{{"user": "me", "password": "{UNKNOWN}", "list": ["{UNKNOWN}"]}}',
    }
    assert project.secret_keys == {"shop:title", "shop:token", "shop:account"}
    assert len(project.notes) == 2
    assert "`shop:token` is encrypted and cannot be read offline" in project.notes[0]


def test_all_configuration_errors_come_at_once(tmp_path: Path) -> None:
    stack = "config: {shop:size: many, shop:names: x, title: [hush]}"
    with pytest.raises(UsageError) as caught:
        load_project("dev", write(tmp_path, dev=stack))
    messages = caught.value.messages
    assert [message.split("`")[1] for message in messages] == ["shop:size", "shop:names", "shop:open", "shop:title"]
    assert messages[0] == "Pulumi.dev.yaml: `shop:size` is 'many', expected an integer"
    assert "is missing, expected a boolean" in messages[2]
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("value", "right"), [("'5'", True), ("-5", True), ("true", False), ("5.5", False)])
def test_integers_may_be_written_as_strings(tmp_path: Path, value: str, right: bool) -> None:
    root = write(tmp_path, "name: a\nconfig: {n: {type: integer}}", dev=f"config: {{n: {value}}}")
    if right:
        assert load_project("dev", root).config["a:n"] == value.strip("'")
    else:
        with pytest.raises(UsageError, match="expected an integer"):
            load_project("dev", root)


def test_unknown_environments_name_those_that_exist(tmp_path: Path) -> None:
    write(tmp_path, dev="", prod="")
    assert environments(tmp_path) == ["dev", "prod"]
    with pytest.raises(UsageError, match=r"unknown environment `staging`.*Environments that exist: dev, prod"):
        load_project("staging", tmp_path)
    with pytest.raises(UsageError, match="unknown environment"):
        load_project("../dev", tmp_path)


@pytest.mark.parametrize(
    ("project", "stack", "text"),
    [
        ("name: [", "", "cannot read"),
        ("- a", "", "expected a mapping"),
        ("runtime: python", "", "`name` is None"),
        ("name: a\nconfig: folder", "", "`config` is 'folder'"),
        ("name: a\nconfig: {k: {type: text}}", "config: {k: 1}", "one of string, integer"),
        ("name: a", "config: [1]", "`config` is"),
        ("name: a", "\t", "cannot read"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, project: str, stack: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        load_project("dev", write(tmp_path, project, dev=stack))
    assert "Pulumi" in str(caught.value)


def test_root_is_found_upward(tmp_path: Path) -> None:
    write(tmp_path)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_root(inner) == tmp_path.resolve()


def test_missing_root_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--root"):
        find_root(tmp_path)


YAML_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.characters(codec="ascii", min_codepoint=32), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["secure", "a", "type"]), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["a:k", "k", "b:k", "size"])


@settings(max_examples=150, derandomize=True, deadline=None)
@given(declared=st.dictionaries(KEYS, YAML_VALUES), given_=st.dictionaries(KEYS, YAML_VALUES))
def test_any_yaml_is_read_or_refused_with_a_message(
    tmp_path_factory: pytest.TempPathFactory, declared: dict[str, object], given_: dict[str, object]
) -> None:
    root = tmp_path_factory.mktemp("project")
    write(root, yaml.safe_dump({"name": "a", "config": declared}), dev=yaml.safe_dump({"config": given_}))
    try:
        project = load_project("dev", root)
    except UsageError:
        return
    assert all(isinstance(value, str) for value in project.config.values())
