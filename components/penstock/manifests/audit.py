"""Audit logs: which services log data accesses, and where logs are kept."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .common import check_range, check_word
from .location import check_project

if TYPE_CHECKING:
    from ..security import AuditedService, AuditRules

SUFFIX = "-audit"
"""What is put behind the base name of log bucket and sink."""
LOG_TYPES = ("ADMIN_READ", "DATA_READ", "DATA_WRITE")
SERVICES: Mapping[str, tuple[str, ...]] = {
    "container.googleapis.com": ("ADMIN_READ", "DATA_WRITE"),
    "modelarmor.googleapis.com": LOG_TYPES,
    "networkservices.googleapis.com": LOG_TYPES,
    "storage.googleapis.com": LOG_TYPES,
}
"""Default. Kubernetes' reads (DATA_READ) are left out: controllers make thousands a minute.
Source: GKE, "Audit logging"; Cloud Audit Logs, "Configure Data Access audit logs"."""
RETENTION_DAYS = 365

FILTER = " OR ".join(f'log_id("cloudaudit.googleapis.com/{kind}")' for kind in ("activity", "data_access", "policy"))
"""All audit logs, by their three names. Source: Cloud Audit Logs, "Overview"."""


def services(rules: "AuditRules") -> "list[AuditedService]":
    """Return the services whose data accesses are logged."""
    if rules.get("services") is not None:
        return list(rules["services"])
    return [{"service": name, "log_types": list(types)} for name, types in SERVICES.items()]


def problems(rules: "AuditRules", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `rules` cannot be rendered."""
    yield from check_project(f"{path}.project", rules["project"])
    names = [item["service"] for item in services(rules)]
    for index, item in enumerate(rules.get("services", [])):
        where = f"{path}.services[{index}]"
        if item["service"] != "allServices" and not item["service"].endswith(".googleapis.com"):
            fix = "Write it like `storage.googleapis.com`"
            yield ConfigError(f"{where}.service", item["service"], "a service's name", fix)
        if item["service"] in names[:index]:
            yield ConfigError(f"{where}.service", item["service"], "each service once", "Join both entries")
        if item.get("log_types") == []:
            yield ConfigError(f"{where}.log_types", [], "at least one log type", f"Choose from {', '.join(LOG_TYPES)}")
        for number, kind in enumerate(item.get("log_types", [])):
            yield from check_word(f"{where}.log_types[{number}]", kind, LOG_TYPES)
    archive = rules.get("archive")
    if archive is not None:
        days = archive.get("retention_days", RETENTION_DAYS)
        yield from check_range(f"{path}.archive.retention_days", days, 1, 3650, "days")
        if not archive["location"]:
            yield ConfigError(f"{path}.archive.location", "", "a location", "Write it like `us-central1` or `global`")
