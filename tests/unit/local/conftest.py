from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.local.model import Plan
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator
from tests.support.local_manifests import graph


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[PortAllocator]:
    allocator = PortAllocator()
    yield allocator
    allocator.close()


@pytest.fixture
def plan_of(tmp_path: Path, ports: PortAllocator) -> Callable[..., Plan]:
    """Make a plan from manifests: `plan_of(manifests, engine="vllm", environ={...})`."""

    def make(manifests: list[dict[str, Any]], *, environ: dict[str, str] | None = None, **options: Any) -> Plan:
        chosen = Options(root=tmp_path, state_dir=tmp_path / "state", python="python3", **options)
        return make_plan(graph(manifests), chosen, ports, environ or {"PATH": "/bin", "OPENAI_API_KEY": "secret"})

    return make
