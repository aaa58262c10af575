"""Shows a recorded graph and its verdicts: as text for people, as one JSON object for programs. Redacts secrets."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from cli.graph.model import Graph, Resource
from cli.graph.schemas import Verdict
from cli.graph.wire import redact, redacted_inputs

_STYLES = {"bold": "1", "dim": "2", "ok": "32", "invalid": "31;1", "no-schema": "33", "note": "33"}
GCP = "gcp:"
_FLAGS = ("protect", "import", "read", "remote", "retainOnDelete")


class Style:
    """Colours and line characters of one output.

    Args:
        colour: use ANSI escape sequences (a terminal, and NO_COLOR unset; see no-color.org).
        ascii_only: draw the tree without box characters, for encodings that lack them.
    """

    def __init__(self, *, colour: bool, ascii_only: bool = False) -> None:
        self._colour = colour
        self.branch, self.last, self.bar = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour and text else text


def render_text(graph: Graph, verdicts: Sequence[Verdict], schemas: str | None, style: Style) -> str:
    """Return tree, counts and verdicts.

    Args:
        graph: what the program registers.
        verdicts: of the custom resources and of Google Cloud's.
        schemas: where the schemas come from, for the heading; None when there are none.
        style: of the output.
    """
    mode = "preview" if graph.preview else "values as after an update"
    lines = [f"{style('bold', graph.environment)}: {count(len(graph.resources), 'resource')} ({mode})", ""]
    lines += _tree(graph, style)
    lines += ["", style("bold", "Counts by type")]
    counts = Counter(resource.type for resource in graph.resources)
    lines += [f"{number:4}  {type_}" for type_, number in sorted(counts.items())]
    custom = [verdict for verdict in verdicts if not verdict.resource.type.startswith(GCP)]
    cloud = [verdict for verdict in verdicts if verdict.resource.type.startswith(GCP)]
    lines += ["", *_schemas(custom, schemas, style)]
    if cloud:
        lines += ["", *_arguments(cloud, style)]
    lines += [style("note", f"note: {note}") for note in graph.notes]
    return "\n".join(lines) + "\n"


def render_json(graph: Graph, verdicts: Sequence[Verdict], schemas: Sequence[str]) -> str:
    """Return one JSON object with `environment`, `resources`, `verdicts` and what else is known."""
    document = {
        "environment": graph.environment,
        "preview": graph.preview,
        "resources": [resource_data(resource) for resource in graph.resources],
        "verdicts": [verdict_data(verdict) for verdict in verdicts],
        "schemas": list(schemas),
        "outputs": redact(graph.outputs),
        "notes": list(graph.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def resource_data(resource: Resource) -> dict[str, Any]:
    """Return a resource for JSON: `type`, `name`, `parent`, `inputs`, `dependencies`, `options` and the rest."""
    return {
        "type": resource.type,
        "name": resource.name,
        "parent": resource.parent,
        "custom": resource.custom,
        "inputs": redacted_inputs(resource.inputs, resource.options),
        "dependencies": list(resource.dependencies),
        "propertyDependencies": {name: list(keys) for name, keys in resource.property_dependencies.items()},
        "options": redact(resource.options),
        "outputs": redact(resource.outputs),
        "part": resource.part,
    }


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for JSON; `resource` is the resource's `type::name`."""
    return {
        "resource": verdict.resource.key,
        "status": verdict.status,
        "errors": [
            {"path": error.path, "value": error.value, "expected": error.expected, "fix": error.fix}
            for error in verdict.errors
        ],
        "undecided": list(verdict.undecided),
        "notEvaluated": list(verdict.not_evaluated),
    }


def _tree(graph: Graph, style: Style) -> Iterator[str]:
    """Yield the tree of each part, under its name if it has one."""
    for part, resources in groupby(graph.resources, key=lambda resource: resource.part):
        inside = list(resources)
        if part:
            yield style("bold", f"{graph.environment}-{part}: {count(len(inside), 'resource')}")
        yield from _part(inside, style)


def _part(resources: Sequence[Resource], style: Style) -> Iterator[str]:
    children: dict[str | None, list[Resource]] = {}
    known = {resource.key for resource in resources}
    for resource in resources:
        parent = resource.parent if resource.parent in known else None
        children.setdefault(parent, []).append(resource)
    rows = list(_rows(children, None, "", style))
    width = max((len(prefix) + len(resource.name) for prefix, resource in rows), default=0)
    for prefix, resource in rows:
        gap = " " * (width - len(prefix) - len(resource.name) + 2)
        flags = "".join(f" [{flag}]" for flag in _FLAGS if resource.options.get(flag))
        if resource.options.get("remote"):
            flags += " (what it creates cannot be seen offline)"
        yield f"{style('dim', prefix)}{resource.name}{gap}{style('dim', resource.type)}{style('note', flags)}"


def _rows(
    children: Mapping[str | None, list[Resource]], parent: str | None, indent: str, style: Style
) -> Iterator[tuple[str, Resource]]:
    siblings = children.get(parent, [])
    for position, resource in enumerate(siblings, 1):
        is_last = position == len(siblings)
        yield indent + (style.last if is_last else style.branch), resource
        yield from _rows(children, resource.key, indent + ("   " if is_last else style.bar), style)


def _schemas(verdicts: Sequence[Verdict], schemas: str | None, style: Style) -> Iterator[str]:
    heading = style("bold", "Custom resources")
    if schemas is None:
        yield f"{heading}: {len(verdicts)}, none checked, since no schemas were given; --schemas DIR names CRD files"
        return
    yield f"{heading} against {schemas}: {_summary(verdicts) or 'none declared'}"
    width = max((len(_kind(verdict)) for verdict in verdicts), default=0)
    for verdict in verdicts:
        yield from _verdict(verdict, f"{_kind(verdict):{width}}", style)


def _arguments(verdicts: Sequence[Verdict], style: Style) -> Iterator[str]:
    """Yield the sum, and each resource that is not right: there are many, and nothing else is to say of a right one."""
    yield f"{style('bold', 'Google Cloud resources')} against the provider's arguments: {_summary(verdicts)}"
    for verdict in verdicts:
        if verdict.status != "ok":
            yield from _verdict(verdict, verdict.resource.type, style)


def _summary(verdicts: Sequence[Verdict]) -> str:
    totals = Counter(verdict.status for verdict in verdicts)
    return ", ".join(f"{totals[status]} {status}" for status in ("ok", "invalid", "no-schema") if totals[status])


def _verdict(verdict: Verdict, kind: str, style: Style) -> Iterator[str]:
    yield f"  {style(verdict.status, f'{verdict.status:9}')}  {kind}  {verdict.resource.name}"
    yield from (f"      {error}" for error in verdict.errors)
    yield from (style("note", f"      undecided: {item}") for item in verdict.undecided)
    yield from (style("note", f"      not evaluated: {item}") for item in verdict.not_evaluated)


def _kind(verdict: Verdict) -> str:
    return str(verdict.resource.inputs.get("kind"))


def count(number: int, noun: str) -> str:
    """Return `number` and `noun`, in the plural where it should be."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
