"""What of a Gateway's chain cannot run on this machine: requests pass it by, and the plan's first warnings say so.

Google's own services are not here, and a workload may ask for a service that this version does not have.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from cli.local.model import Unrealized
from cli.local.objects import WORKLOADS, Object, Objects

TRAFFIC = "GCPTrafficExtension"
GUARDRAILS_FLAG = "--guardrails-file="
_OPTIONAL = ("services.guardrails",)
"""Services that components declare and a version may lack; any other unknown module is a mistake and ends the start."""


def bypassed(objects: Objects, namespace: str, entry: Mapping[str, Any]) -> str | None:
    """Return why an extension of the traffic chain is not asked here, or None if it is."""
    service = entry.get("googleAPIServiceName")
    if service:
        return f"{service} is not on this machine: requests and answers pass it by, unscreened"
    ref = entry.get("backendRef") or {}
    kind, name = ref.get("kind", "Service"), ref.get("name", "")
    declared = objects.get("Service", namespace, name) if kind == "Service" else None
    selector = (declared.spec.get("selector") or {}) if declared else {}
    modules = [absent_module(workload) for workload in objects.workloads(namespace, selector)]
    if modules and all(modules):
        return f"`{modules[0]}` is not part of this version: requests and answers pass it by, unchecked"
    return None


def absent_module(workload: Object) -> str | None:
    """Return the service module that a workload runs if this version does not have it."""
    containers = (workload.pod_template.get("spec") or {}).get("containers") or [{}]
    command = [str(word) for word in containers[0].get("command") or []]
    if len(command) < 3 or command[1] != "-m" or command[2] not in _OPTIONAL:
        return None
    return command[2] if absent(command[2]) else None


def bypasses(objects: Objects) -> Iterator[Unrealized]:
    """Yield the extensions that are passed by, then the workloads that do not run for want of their service."""
    for item in objects.of(TRAFFIC):
        for chain in item.spec.get("extensionChains") or []:
            for entry in chain.get("extensions") or []:
                reason = bypassed(objects, item.namespace, entry)
                if reason:
                    yield Unrealized(f"extension {entry.get('name')}", reason, (item.name,), passed_by=True)
    for kind in WORKLOADS:
        for workload in objects.of(kind):
            module = absent_module(workload)
            if module:
                yield Unrealized(kind, f"`{module}` is not part of this version: not run", (workload.name,))
            if _has_flag(workload, GUARDRAILS_FLAG) and absent(_OPTIONAL[0]):
                reason = f"`{_OPTIONAL[0]}` is not part of this version: prompts and answers pass unscreened"
                yield Unrealized(f"guardrails of {workload.name}", reason, (workload.name,), passed_by=True)


def absent(module: str) -> bool:
    """Return whether this version lacks a service."""
    return importlib.util.find_spec(module) is None


def _has_flag(workload: Object, flag: str) -> bool:
    containers = (workload.pod_template.get("spec") or {}).get("containers") or [{}]
    return any(str(argument).startswith(flag) for argument in containers[0].get("args") or [])


def without_absent(argv: list[str]) -> list[str]:
    """Return a command without flags that name a service this version lacks; `bypasses` says that it does."""
    return [argument for argument in argv if not (argument.startswith(GUARDRAILS_FLAG) and absent(_OPTIONAL[0]))]
