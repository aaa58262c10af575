"""The package's outside: exports, schema, and what its modules may not know."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import penstock
import pytest
from penstock import errors

from tests.support import component_schema

PACKAGE = Path(penstock.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module))
    return found


def test_all_is_sorted_and_complete():
    assert penstock.__all__ == sorted(penstock.__all__)
    public = {name for name, value in vars(penstock).items() if not name.startswith("_") and not _is_module(value)}
    assert set(penstock.__all__) == public


def _is_module(value):
    return type(value).__name__ == "module"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_knows_what_it_must_not(path):
    roots = {name.split(".")[0] for name in _imports(path)}
    assert not roots & {"grpc", "starlette", "services", "infra", "cli", "policies"}
    assert "__future__" not in roots  # it breaks the inference of the component schema
    if path.parent.name == "manifests":
        assert "pulumi" not in roots
        assert "pulumi_kubernetes" not in roots


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_component_reads_configuration(path):
    assert not re.search(r"(?<![A-Za-z])Config\(", path.read_text(encoding="utf-8"))


def test_manifests_can_be_imported_without_pulumi():
    script = (
        "import sys; sys.modules['pulumi'] = None; sys.modules['pulumi_kubernetes'] = None\n"
        "import types; package = types.ModuleType('penstock'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['penstock'] = package\n"
        "from penstock.manifests import body_router, extensions, gateway, pool, replica_set, route\n"
    )
    subprocess.run([sys.executable, "-c", script, str(PACKAGE)], check=True, timeout=30)


def test_schema_is_the_golden_one():
    golden = component_schema.GOLDEN.read_text(encoding="utf-8")
    assert component_schema.text() == golden, "run `python -m tests.support.component_schema` and read the diff"


def test_every_input_and_output_is_documented():
    schema = component_schema.schema()
    described = [
        (token, name, item)
        for token, definition in {**schema["resources"], **schema["types"]}.items()
        for section in ("inputProperties", "properties")
        for name, item in definition.get(section, {}).items()
    ]
    assert len(described) > 80
    assert [f"{token}.{name}" for token, name, item in described if not item.get("description")] == []


def test_tokens_are_those_of_the_schema():
    tokens = {f"penstock:index:{cls.__name__}" for cls in component_schema.components()}
    assert set(component_schema.schema()["resources"]) == tokens


def test_component_host_serves_the_schema():
    """The real host as Pulumi starts it: it prints a port and answers GetSchema over gRPC."""
    import grpc
    from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

    host = PACKAGE.parent / "__main__.py"
    process = subprocess.Popen([sys.executable, "-u", str(host), "127.0.0.1:1"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            answer = json.loads(stub.GetSchema(provider_pb2.GetSchemaRequest(), timeout=30).schema)
        assert answer["name"] == "penstock"
        assert set(answer["resources"]) == set(component_schema.schema()["resources"])
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def test_errors_name_path_value_expectation_and_fix():
    error = penstock.ConfigError("models[0].name", 3, "a string", "Give a string")
    assert str(error) == "models[0].name: got 3, expected a string. Give a string."
    both = penstock.ConfigErrors([error, error])
    assert str(both).startswith("2 configuration errors:\n  models[0].name")
    assert isinstance(both, penstock.PenstockError)


def test_raise_if_is_silent_without_errors():
    errors.raise_if([])


def test_long_values_are_shortened():
    assert len(str(penstock.ConfigError("p", "x" * 10_000, "less", "Shorten it"))) < 200


def test_did_you_mean_suggests_or_lists():
    assert "`weight`" in errors.did_you_mean("weigth", ["weight", "name"])
    assert errors.did_you_mean("zzz", ["weight", "name"]) == "Use one of: name, weight"
