"""Golden inventories: what each environment declares, kept as YAML so that a change shows as a readable diff.

`python -m tests.support.golden` (`make golden`) writes them anew; look at `git diff tests/golden` afterwards.
"""

import difflib
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cli.graph.model import Graph, Resource
from cli.graph.project import environments
from cli.graph.schemas import is_custom_resource
from cli.graph.wire import redacted_inputs
from tests.support.recordings import recorded

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "golden"
REGENERATE = "make golden"

_CONTAINER = ("name", "image", "command", "args", "ports")


def inventory(graph: Graph) -> dict[str, Any]:
    """Return `counts` by type and the `resources`, each with type, name, parent and the values that matter."""
    counts = Counter(resource.type for resource in graph.resources)
    return {"counts": dict(sorted(counts.items())), "resources": [_entry(resource) for resource in graph.resources]}


def _entry(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": resource.type, "name": resource.name, "parent": resource.parent}
    if resource.part:
        entry["part"] = resource.part
    if resource.options.get("protect"):
        entry["protect"] = True
    values = _values(resource)
    return {**entry, "values": values} if values else entry


def _values(resource: Resource) -> dict[str, Any]:
    """Return a custom resource's whole spec; of other objects what they are called, run, serve and configure."""
    inputs = redacted_inputs(resource.inputs, resource.options)
    if "kind" not in inputs:
        return inputs
    metadata = inputs.get("metadata", {})
    values = {name: metadata[name] for name in ("name", "namespace", "annotations") if name in metadata}
    values.update({name: inputs[name] for name in ("data", "stringData") if name in inputs})
    spec = inputs.get("spec")
    if isinstance(spec, Mapping):
        values["spec"] = _spec(resource, spec)
    return values


def _spec(resource: Resource, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    if _kind(resource) == "CustomResourceDefinition":
        versions = [version["name"] for version in spec["versions"]]
        return {"group": spec["group"], "kind": spec["names"]["kind"], "versions": versions}
    if _kind(resource) == "LeaderWorkerSet":
        group = spec["leaderWorkerTemplate"]
        pods = {name: _pods(item) for name, item in group.items() if name.endswith("Template")}
        return {**spec, "leaderWorkerTemplate": {**group, **pods}}
    if is_custom_resource(resource) or "template" not in spec:
        return spec
    return {name: spec[name] for name in ("replicas", "selector") if name in spec} | _pods(spec["template"])


def _kind(resource: Resource) -> str:
    """Return the kind of a Kubernetes object."""
    return str(resource.inputs.get("kind"))


def _pods(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the containers of a pod template are called and run."""
    pod = template.get("spec", {})
    return {
        group: [{name: container[name] for name in _CONTAINER if name in container} for container in pod[group]]
        for group in ("initContainers", "containers")
        if group in pod
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks and repeats values instead of linking them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(content: Mapping[str, Any]) -> str:
    """Return `content` as YAML, keys in the given order."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def path_of(environment: str) -> Path:
    """Return the file of `environment`'s inventory."""
    return FOLDER / f"{environment}.yaml"


def current(environment: str) -> str:
    """Return the inventory of what the program declares now."""
    heading = f"# What the environment `{environment}` declares. Written by `{REGENERATE}`; do not edit.\n"
    return heading + dump(inventory(recorded(environment)))


def difference(environment: str) -> str:
    """Return a unified diff from the kept inventory to the current one, empty if they agree."""
    path = path_of(environment)
    kept = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = difflib.unified_diff(
        kept.splitlines(keepends=True),
        current(environment).splitlines(keepends=True),
        f"tests/golden/{path.name}",
        f"what `{environment}` declares now",
    )
    return "".join(lines)


def main() -> int:
    """Write the inventory of each environment and say which ones changed."""
    for environment in environments(ROOT):
        path, text = path_of(environment), current(environment)
        changed = not path.is_file() or path.read_text(encoding="utf-8") != text
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{'wrote' if changed else 'unchanged'}: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
