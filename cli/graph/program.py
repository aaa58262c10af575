"""Records this project's own program (`infra.program.main`) for one of its environments."""

import contextlib
import importlib
import sys
from dataclasses import replace
from pathlib import Path

from cli.errors import UsageError
from cli.graph.model import Graph
from cli.graph.project import find_root, load_project
from cli.graph.recorder import Program, record


def record_environment(environment: str, *, preview: bool = False, root: Path | None = None) -> Graph:
    """Return all that the program registers for `environment`.

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
    main = _program(root)
    with contextlib.chdir(root):  # as Pulumi does, so that relative paths in a program mean the same
        graph = record(
            main,
            environment,
            project=project.name,
            preview=preview,
            config=project.config,
            secret_keys=project.secret_keys,
        )
    return replace(graph, notes=project.notes)


def _program(root: Path) -> Program:
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
    main: Program = module.main
    return main
