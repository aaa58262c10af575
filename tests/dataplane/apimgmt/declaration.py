"""The stacks of these tests: one pod on SQLite, and two pods on a real Redis or Valkey server.

Models: `alpha` (two simulated replicas, with an adapter), `slow` (a token takes 10 ms), and `echo`, whose replica shows
what reached it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cli.local.model import Piece, Plan
from tests.dataplane.echo import with_echo_replicas
from tests.support.local import FAST

ALPHA, ADAPTER, SLOW, ECHO = "alpha", "alpha-lora", "slow", "echo"
AUDIENCE = "gateway"
LEASE_S = 5
"""The shortest that can be set: how long what a killed process held stays held."""

PROMPT_PRICE, COMPLETION_PRICE, REQUEST_PRICE = 2_000_000, 6_000_000, 100
"""Millionths of a US dollar per million tokens, and per request: a prompt token costs 2, a completion token 6."""

ENVIRON = {**FAST, "PENSTOCK_SIM_LOG_LEVEL": "debug"}

STORES: Mapping[str, Any] = {
    "sqlite": {},
    "valkey": {
        "workload": {"replicas": 2, "logLevel": "info"},
        "store": {
            "kind": "valkey",
            "valkey": {"image": "valkey/valkey:8.1.4", "passwordSecret": {"name": "valkey", "key": "word"}},
        },
    },
}


def settings(store: str, issuer: str) -> dict[str, Any]:
    """Return the settings of a stack; tokens of `issuer` (a URL) are accepted beside keys."""
    accepted = {"issuer": issuer, "audiences": [AUDIENCE], "jwksUri": f"{issuer}/keys", "algorithms": ["RS256"]}
    credentials = {"policy": "credentials", "settings": {"issuers": [{**accepted, "clockSkewSeconds": 60}]}}
    management = {
        "mode": "bundled",
        "estimation": {"reserve": "bytes"},
        "policies": [credentials, {"policy": "validation"}, {"policy": "limits"}],
        "ratePlans": [
            {
                "name": "plan",
                "perRequest": REQUEST_PRICE,
                "prices": {"prompt": PROMPT_PRICE, "completion": COMPLETION_PRICE},
            }
        ],
        "workload": {"logLevel": "debug"},
        **STORES[store],
    }
    return {
        "bodyRouter": {"replicas": 1, "logLevel": "debug"},
        "picker": {"logLevel": "debug"},
        "apiManagement": management,
        "models": [
            {
                **_model(ALPHA),
                "replicas": 2,
                "adapters": [{"name": ADAPTER, "source": "example/lora"}],
                "extraArgs": ["--enable-prompt-tokens-details"],
            },
            _model(SLOW),
            _model(ECHO),
        ],
    }


def _model(name: str) -> dict[str, Any]:
    return {"name": name, "source": f"example/{name}", "replicaSets": [{"name": "a"}]}


def change(plan: Plan) -> Plan:
    """Return the plan with an echo replica, a slow replica and a short lease."""
    echoing = {piece.name: piece for piece in with_echo_replicas(plan).pieces}
    pieces = tuple(
        echoing[piece.name] if piece.name.startswith(f"{ECHO}-a-") else _paced(piece) for piece in plan.pieces
    )
    return with_config({"leaseSeconds": LEASE_S})(replace(plan, pieces=pieces))


def with_config(changes: Mapping[str, Any]) -> Callable[[Plan], Plan]:
    """Return what changes the config file of API management: settings that stacks do not have."""

    def changed(plan: Plan) -> Plan:
        ours = {config_file(piece) for piece in plan.pieces if is_management(piece)}
        files = {
            path: yaml.safe_dump({**yaml.safe_load(text), **changes}, sort_keys=False) if path in ours else text
            for path, text in plan.files.items()
        }
        return replace(plan, files=files)

    return changed


def is_management(piece: Piece) -> bool:
    """Tell whether a piece is a pod of API management."""
    return "services.apimgmt" in piece.command


def config_file(piece: Piece) -> Path:
    """Return the config file of a pod of API management."""
    return Path(next(found[1] for word in piece.command if (found := re.match(r"--config-file=(.*)", word))))


def _paced(piece: Piece) -> Piece:
    if piece.kind != "replica" or not piece.name.startswith(f"{SLOW}-a-"):
        return piece
    return replace(piece, env={**piece.env, "PENSTOCK_SIM_DECODE_TPS": "100"})
