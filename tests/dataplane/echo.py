"""A small stack whose replicas show what reached them: models `alpha`, with an adapter, and `beta`."""

import sys
from dataclasses import replace
from typing import Any

from cli.local.model import Piece, Plan

ALPHA, ADAPTER, BETA = "alpha", "alpha-lora", "beta"

SETTINGS: dict[str, Any] = {
    "bodyRouter": {"replicas": 1, "logLevel": "debug"},
    "picker": {"logLevel": "debug"},
    "models": [
        {
            "name": ALPHA,
            "source": "example/alpha",
            "replicaSets": [{"name": "a"}],
            "adapters": [{"name": ADAPTER, "source": "example/lora"}],
        },
        {"name": BETA, "source": "example/beta", "replicaSets": [{"name": "a"}]},
    ],
}


def with_echo_replicas(plan: Plan) -> Plan:
    """Return the plan with an echo replica in place of each simulator."""
    return replace(plan, pieces=tuple(_echo(piece) if piece.kind == "replica" else piece for piece in plan.pieces))


def _echo(piece: Piece) -> Piece:
    command = (sys.executable, "-m", "tests.support.echo_replica", f"--port={piece.port}")
    return replace(piece, command=command)
