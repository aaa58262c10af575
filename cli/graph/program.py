"""Records this project's own program (`infra.program.main`) for one of its environments."""

import contextlib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from cli.errors import UsageError
from cli.graph.model import Graph, Resource
from cli.graph.monitor import DuplicateResource
from cli.graph.project import Project, find_root, load_project
from cli.graph.providers import Answers
from cli.graph.recorder import record


def record_environment(environment: str, *, preview: bool = False, root: Path | None = None) -> Graph:
    """Return all that the program registers for `environment`.

    An environment of several stacks (the program's `stacks` says so) becomes one graph: `part` of a resource names its
    stack's part. A stack reads what the one before left after an update, also in previews, as it would in the cloud.

    Usage:
        graph = record_environment("local")
        for manifest in graph.manifests():
            ...

    Args:
        environment: names `Pulumi.<environment>.yaml`.
        preview: as in `pulumi preview`: what only a provider knows is unknown.
        root: the project's folder; default: the nearest one with a `Pulumi.yaml`, from the working directory upward.

    Raises:
        UsageError: no such project or environment, or its files cannot be read; names what exists.
        penstock.errors.ConfigErrors: the program refuses the settings; holds every error.
        Exception: whatever else the program raised, unchanged.
    """
    root = root.resolve() if root else find_root()
    project = load_project(environment, root)
    program = _program(root)
    names = _stacks(program, project)
    parts: list[tuple[str | None, Graph]] = []
    before: Graph | None = None
    with contextlib.chdir(root):  # as Pulumi does, so that relative paths in a program mean the same
        for position, (part, stack) in enumerate(names.items(), 1):
            parts.append((part or None, _record(program, project, stack, before, preview=preview)))
            if preview and position < len(names):
                before = _record(program, project, stack, before, preview=False)
            else:
                before = parts[-1][1]
    return _joined(project, preview, parts)


def _record(program: ModuleType, project: Project, stack: str, before: Graph | None, *, preview: bool) -> Graph:
    answers = Answers(before)
    return record(
        program.main,
        stack,
        project=project.name,
        preview=preview,
        config=project.config,
        secret_keys=project.secret_keys,
        functions=answers.functions,
        outputs=answers.outputs,
    )


def _stacks(program: ModuleType, project: Project) -> Mapping[str, str]:
    """Return the stack of each part of the environment in the order of updates; the part of a single stack is ""."""
    stacks = getattr(program, "stacks", None)
    return stacks(project.environment, project.config) if stacks else {"": project.environment}


def _joined(project: Project, preview: bool, parts: list[tuple[str | None, Graph]]) -> Graph:
    resources: dict[str, Resource] = {}
    for part, graph in parts:
        for resource in graph.resources:
            first = resources.setdefault(resource.key, resource)
            if first is not resource:
                raise DuplicateResource(resource.type, resource.name, (first.parent, resource.parent))
            resources[resource.key] = replace(resource, part=part)
    outputs = {name: value for _, graph in parts for name, value in graph.outputs.items()}
    notes = [*project.notes, *(note for _, graph in parts for note in graph.notes)]
    return Graph(project.environment, preview, tuple(resources.values()), outputs, tuple(dict.fromkeys(notes)))


def _program(root: Path) -> ModuleType:
    """Import `infra.program` from the project itself where it has one, else from where Penstock is installed."""
    own = root / "infra" / "program.py"
    if own.is_file() and str(root) not in sys.path:
        sys.path.insert(0, str(root))
    # Imported only now: a program that cannot be imported must not harm what needs no program.
    module = importlib.import_module("infra.program")
    if own.is_file() and Path(str(module.__file__)).resolve() != own:
        raise UsageError(
            f"this process has already loaded the program {module.__file__} and cannot load {own} too. "
            "Use one process per project"
        )
    return module
