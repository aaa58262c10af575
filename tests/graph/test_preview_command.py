"""`penstock preview`, on a small project of its own or on this one.

As users run it, in a process of its own, where a process can make a difference: `process`; else in this one: `preview`.
"""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import penstock

ROOT = Path(__file__).parents[2]

PROGRAM = """
import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.apiextensions import CustomResource

class Shop(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("shop:index:Shop", name)
        child = pulumi.ResourceOptions(parent=self, protect=True)
        self.secret = k8s.core.v1.Secret(
            f"{name}-secret", metadata={"name": "s"}, string_data={"key": "hush-plain"}, opts=child
        )
        CustomResource(
            f"{name}-widget", api_version="example.dev/v1", kind="Widget", metadata={"name": "w"},
            spec={"size": pulumi.Config().require_int("size"), "of": self.secret.id,
                  "token": pulumi.Config().get_secret("token")},
            opts=pulumi.ResourceOptions(parent=self),
        )

def main():
    if pulumi.Config().get("fail") == "settings":
        from penstock.errors import ConfigError, ConfigErrors
        raise ConfigErrors([ConfigError("a.b", 1, "two", "Write 2"), ConfigError("c", 2, "three", "Write 3")])
    if pulumi.Config().get("fail") == "duplicate":
        Shop("shop")
    elif pulumi.Config().get("fail"):
        raise LookupError("no such thing")
    Shop("shop")
    pulumi.export("key", pulumi.Output.secret("hush-output"))
"""

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "example.dev",
        "names": {"kind": "Widget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "maximum": 9},
                                    "of": {"type": "string"},
                                    "token": {"type": "string"},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preview") / "shop"
    (root / "infra").mkdir(parents=True)
    (root / "infra" / "__init__.py").touch()
    (root / "infra" / "program.py").write_text(PROGRAM)
    (root / "Pulumi.yaml").write_text("name: shop\nruntime: python\nconfig: {size: {type: integer, default: 3}}\n")
    (root / "Pulumi.local.yaml").write_text("config: {shop:token: {secure: v1:abc}}\n")
    (root / "Pulumi.wrong.yaml").write_text("config: {shop:size: 10, token: {secure: v1:abc}}\n")
    (root / "Pulumi.settings.yaml").write_text("config: {shop:fail: settings}\n")
    (root / "Pulumi.duplicate.yaml").write_text("config: {shop:fail: duplicate}\n")
    (root / "Pulumi.broken.yaml").write_text("config: {shop:fail: 'true'}\n")
    (root / "Pulumi.typo.yaml").write_text("config: {shop:size: many}\n")
    (root / "crds").mkdir()
    (root / "crds" / "widget.yaml").write_text(yaml.safe_dump(CRD))
    return root


def process(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "cli.main", *arguments]
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env={**environment, **path, **env}, capture_output=True, text=True, timeout=60
    )


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def preview(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return penstock("preview", *arguments, cwd=project)


@pytest.mark.parametrize("run", [penstock, process])
def test_text_shows_tree_counts_and_verdicts(project: Path, run: Run) -> None:
    result = run("preview", "--schemas", "crds", cwd=project)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "local: 3 resources (preview)",
        "",
        "└─ shop            shop:index:Shop",
        "   ├─ shop-secret  kubernetes:core/v1:Secret [protect]",
        "   └─ shop-widget  kubernetes:example.dev/v1:Widget",
        "",
        "Counts by type",
        "   1  kubernetes:core/v1:Secret",
        "   1  kubernetes:example.dev/v1:Widget",
        "   1  shop:index:Shop",
        "",
        "Custom resources against 1 kind of crds: 1 ok",
        "  ok         Widget  shop-widget",
        "      undecided: spec.of: not known before the update",
        "      undecided: spec.token: not known before the update",
        "note: `shop:token` is encrypted and cannot be read offline; it stands as an unknown secret",
    ]


def test_json_is_one_object_without_secrets(project: Path) -> None:
    result = preview(project, "--schemas", "crds", "--json", "--no-preview")
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["environment"] == "local"
    by_name = {resource["name"]: resource for resource in document["resources"]}
    widget = by_name["shop-widget"]
    assert set(widget) >= {"type", "name", "parent", "inputs", "dependencies", "options"}
    assert widget["type"] == "kubernetes:example.dev/v1:Widget"
    assert widget["parent"] == "shop:index:Shop::shop"
    assert widget["dependencies"] == ["kubernetes:core/v1:Secret::shop-secret"]
    assert widget["inputs"]["spec"] == {"size": 3, "of": "s", "token": "[secret]"}
    assert by_name["shop-secret"]["inputs"]["stringData"] == "[secret]"
    assert by_name["shop-secret"]["options"]["protect"] is True
    assert [(verdict["resource"], verdict["status"]) for verdict in document["verdicts"]] == [
        ("kubernetes:example.dev/v1:Widget::shop-widget", "ok")
    ]
    assert document["outputs"] == {"key": "[secret]"}
    assert "hush" not in result.stdout


def test_output_is_the_same_every_time(project: Path) -> None:
    """Whatever the order of Python's sets."""
    processes = [process("preview", "--json", cwd=project, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    runs = {result.stdout for result in (*processes, preview(project, "--json"))}
    assert len(runs) == 1
    assert "shop-widget" in runs.pop()


def test_invalid_resources_exit_1(project: Path) -> None:
    result = preview(project, "--schemas", "crds", "--env", "wrong")
    assert result.returncode == 1
    assert "spec.size: got 10, expected a number of at most 9. Lower it." in result.stdout
    result = preview(project, "--schemas", "crds", "--env", "wrong", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["verdicts"][0]["errors"] == [
        {"path": "spec.size", "value": "10", "expected": "a number of at most 9", "fix": "Lower it"}
    ]


def test_missing_schemas_are_said(project: Path) -> None:
    result = preview(project)
    assert result.returncode == 0
    assert (
        "Custom resources: 1, none checked, since no schemas were given; --schemas DIR names CRD files" in result.stdout
    )
    document = json.loads(preview(project, "--json").stdout)
    assert document["schemas"] == []
    assert [verdict["status"] for verdict in document["verdicts"]] == ["no-schema"]


def test_schemas_beside_the_project_are_the_default(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    root.symlink_to(project)  # resolved to the project itself, so the folder beside it counts
    beside = project.parent / "shared" / "crds"
    beside.mkdir(parents=True)
    (beside / "widget.yaml").symlink_to(project / "crds" / "widget.yaml")
    try:
        result = penstock("preview", "--root", str(root), cwd=tmp_path)
        assert "against 1 kind of ../shared/crds: 1 ok" in result.stdout
    finally:
        (beside / "widget.yaml").unlink()
        beside.rmdir()
        beside.parent.rmdir()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--env", "nope"], ["unknown environment `nope`", "broken, duplicate, local, settings, typo, wrong"]),
        (["--env", "settings"], ["a.b: got 1, expected two. Write 2", "c: got 2, expected three. Write 3"]),
        (["--env", "duplicate"], ["two resources of type `shop:index:Shop` are named `shop`"]),
        (["--env", "broken"], ["LookupError: no such thing", "program.py:"]),
        (["--env", "typo"], ["Pulumi.typo.yaml: `shop:size` is 'many', expected an integer"]),
        (["--schemas", "nowhere"], ["nowhere is not a folder"]),
        (["--schemas", "infra"], ["no CRD in infra"]),
        (["--root", "infra"], ["there is no Pulumi.yaml in infra"]),
        (["--nonsense"], ["unrecognized arguments: --nonsense"]),
    ],
    ids=str,
)
def test_errors_exit_2_with_a_message(project: Path, arguments: list[str], messages: list[str]) -> None:
    run = process if arguments == ["--env", "broken"] else penstock
    result = run("preview", *arguments, cwd=project)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in result.stderr


def test_traceback_on_demand(project: Path) -> None:
    result = process("preview", "--env", "broken", cwd=project, PENSTOCK_TRACEBACK="1")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def on_terminal(project: Path) -> str:
    """Run the preview with a terminal as its output."""
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "cli.main", "preview"],
            cwd=project,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=follower,
        ) as running:
            os.close(follower)
            output = b""
            while True:
                try:
                    piece = os.read(leader, 65536)
                except OSError:  # Linux: the other side is closed
                    break
                if not piece:
                    break
                output += piece
        assert running.returncode == 0
        return output.decode()
    finally:
        os.close(leader)


def on_a_terminal_here(project: Path) -> str:
    """Run the preview in this process, with a terminal as its output."""
    leader, follower = pty.openpty()
    with open(leader, "rb") as reader, open(follower, "w", encoding="utf-8") as terminal:
        assert penstock("preview", cwd=project, stdout=terminal).returncode == 0
        return reader.read1(65536).decode()  # little, so it waits in the terminal


def test_colours_only_on_a_terminal_that_wants_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in on_terminal(project)
    assert "\x1b[" in on_a_terminal_here(project)
    assert "\x1b[" not in preview(project).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "local: 3 resources" in (plain := on_a_terminal_here(project))
    assert "\x1b[" not in plain


def test_encodings_without_boxes_get_ascii(project: Path) -> None:
    result = process("preview", cwd=project, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "`- shop " in result.stdout


def test_a_reader_that_leaves_is_no_error(project: Path) -> None:
    command = f"{sys.executable} -m cli.main preview --json | head -c 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=project, env=environment, capture_output=True, timeout=60
    )
    assert result.returncode == 0
    assert result.stderr == b""


def test_help_and_version() -> None:
    assert process("--version").stdout.startswith("penstock 0.")
    for arguments in (["--help"], ["preview", "--help"]):
        result = penstock(*arguments)
        assert result.returncode == 0
        assert "examples:" in result.stdout
    assert "local" in penstock("--help").stdout
    nothing = penstock()
    assert nothing.returncode == 2
    assert "COMMAND" in nothing.stderr


def test_preview_does_not_load_what_other_commands_need() -> None:
    code = (
        "import sys; from cli.main import main; main(['preview', '--json']); "
        "print([m for m in sys.modules if m.startswith(('cli.local', 'services'))], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stderr.strip() == "[]"


def test_this_project_previews() -> None:
    result = process("preview", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["environment"] == "local"
    kinds = {resource["type"] for resource in document["resources"]}
    assert "kubernetes:gateway.networking.k8s.io/v1:Gateway" in kinds
    assert "penstock:index:ModelReplicaSet" in kinds
    assert "04da6b54" not in json.dumps([resource["inputs"] for resource in document["resources"]])
