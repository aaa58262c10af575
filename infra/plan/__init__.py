"""From settings to the arguments of every component, checked as a whole before anything is registered."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import penstock
from penstock import ConfigErrors
from penstock.errors import raise_if

from infra.plan import checks, entry, models, needed, platform
from infra.plan.planned import LATER, Planned, begins
from infra.plan.platform import PlatformPlan
from infra.plan.security import security
from infra.settings import Report, Settings, settings_of

__all__ = ["LATER", "Plan", "Planned", "PlatformPlan", "load", "make"]


@dataclass(frozen=True)
class Plan:
    """Every component of one environment; replica sets and pools pair up by position."""

    platform: PlatformPlan
    gateway: Planned[penstock.InferenceGateway]
    body_router: Planned[penstock.BodyRouter]
    extensions: Planned[penstock.Extensions]
    replica_sets: list[Planned[penstock.ModelReplicaSet]]
    pools: list[Planned[penstock.InferencePool]]
    routes: list[Planned[penstock.ModelRoute]]
    claims: Planned[penstock.RdmaNetwork] | None
    api_management: Planned[penstock.ApiManagement] | None
    guardrails: Planned[penstock.Guardrails] | None
    security: Planned[penstock.SecurityBase] | None
    publication: Planned[penstock.ServicePublication] | None
    endpoints: list[Planned[penstock.PrivateEndpoint]]

    def components(self) -> Iterator[Planned[Any]]:
        """Yield every component."""
        yield from self.platform.components()
        single = (self.gateway, self.body_router, self.claims, self.api_management, self.guardrails, self.security)
        yield from (one for one in (*single, self.publication) if one is not None)
        for several in (self.replica_sets, self.pools, self.routes, self.endpoints):
            yield from several
        yield self.extensions


def load(raw: Any) -> tuple[Settings, Plan]:
    """Return validated settings and their plan.

    Args:
        raw: JSON-like data, keys in camelCase.

    Raises:
        ConfigErrors: everything that is wrong with `raw`, in shape and in meaning, each only once.
    """
    report = Report()
    settings = settings_of(raw, report)
    if "" in report.replaced:
        raise ConfigErrors(report.errors)
    needed.fill(settings, report)
    plan = make(settings)
    errors = [error for planned in plan.components() for error in planned.problems()]
    errors += checks.problems(settings)
    errors = report.errors + [error for error in errors if not _touches(error.path, report.replaced)]
    raise_if({(error.path, error.expected): error for error in errors}.values())
    return settings, plan


def make(settings: Settings) -> Plan:
    """Return the arguments of all components; only `load` tells whether they are right."""
    gateway = entry.gateway(settings)
    listener = penstock.InferenceGateway.listener_name(gateway.args)  # type: ignore[arg-type]
    guardrails = entry.guardrails(settings)
    api_management = entry.api_management(settings, guardrails)
    sets = [(at, number) for at, model in enumerate(settings["models"]) for number in range(len(model["replica_sets"]))]
    replica_sets = [models.replica_set(settings, at, number) for at, number in sets]
    return Plan(
        platform=platform.make(settings),
        gateway=gateway,
        body_router=entry.body_router(settings),
        extensions=entry.extensions(settings, api_management, guardrails),
        replica_sets=replica_sets,
        pools=[models.pool(settings, at, number, gateway.args) for at, number in sets],
        routes=[models.route(settings, at, listener) for at in range(len(settings["models"]))],
        claims=entry.claims(settings),
        api_management=api_management,
        guardrails=guardrails,
        security=security(settings, replica_sets, api_management, guardrails),
        publication=entry.publication(settings),
        endpoints=[entry.endpoint(settings, index) for index in range(len(settings["private_endpoints"]))],
    )


def _touches(path: str, replaced: set[str]) -> bool:
    """Return whether a path lies at, below or above a value that was replaced."""
    return any(begins(path, other) or begins(other, path) for other in replaced)
