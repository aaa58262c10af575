"""API management: entries in the traffic chain, the bundled service's workload, and what is refused."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._naming import check_label
from ..errors import ConfigError
from . import apigee, guardrails, management_config, management_store
from .callout import CONFIG_DIR, Callout
from .common import Manifest, check_image, check_mode_fields, check_range, check_word
from .extensions import EVENTS, TIMEOUT_MS, TIMEOUT_RANGE_MS
from .location import check_cloud
from .traffic_callout import STREAM_TIMEOUT_S as STREAM_TIMEOUT_S
from .traffic_callout import made, workload_problems

if TYPE_CHECKING:
    from ..api_management import ApiManagementArgs
    from ..extensions import ExtensionCallout

NAME = guardrails.HOST
GRPC_PORT = 9006
HEALTH_PORT = 9007

BUNDLED, APIGEE = "bundled", "apigee"
MODES = (BUNDLED, APIGEE)
ADMIN_PORT = 9010
"""Admin API and developer portal; on the loopback address unless `admin.expose` is set."""

GUARDRAILS_FILE = "guardrails.yaml"
_PEPPER = {"name": NAME, "key": "pepper"}
_FIELDS: Mapping[str, tuple[str, ...]] = {
    BUNDLED: (
        *("store", "pepper_secret", "guardrails", "workload", "image"),
        *("key_value_maps", "admin", *management_config.SECTIONS, *management_config.LISTS),
    ),
    APIGEE: ("apigee",),
}
"""Fields that only one mode reads; in the other they would promise what does not happen."""


def callouts(args: "ApiManagementArgs") -> "list[ExtensionCallout]":
    """Return the entries of the traffic chain; none for an Apigee that only stands in front, as a bridge."""
    if args["mode"] == APIGEE and not apigee.in_chain(args):
        return []
    entry: ExtensionCallout = {
        "name": NAME,
        "purpose": "management",
        "service_namespace": args["namespace"],
        "events": list(EVENTS),
        "timeout_ms": args.get("timeout_ms", TIMEOUT_MS),
        "fail_open": args.get("fail_open", False),
        "request_body_mode": "FullDuplexStreamed",
        "response_body_mode": "FullDuplexStreamed",
    }
    if args["mode"] == APIGEE:
        entry["apigee_backend"] = apigee.backend_name(args)
        entry["metadata"] = apigee.metadata(args)
    else:
        entry["service"], entry["port"] = NAME, GRPC_PORT
    return [entry]


def cluster_features(args: "ApiManagementArgs") -> list[str]:
    """Return the names, in the cluster's catalogue, of what the cluster must be new enough for."""
    return ["apigee"] if args["mode"] == APIGEE and apigee.in_chain(args) else []


def calls_google_apis(args: "ApiManagementArgs") -> bool:
    """Return whether the workload calls Google APIs: for tokens to Memorystore, or for guardrails."""
    if args["mode"] != BUNDLED:
        return False
    screens = args.get("guardrails")
    by_iam = management_store.kind(args) == management_store.MEMORYSTORE
    return by_iam or (screens is not None and guardrails.calls_google_apis(screens))


def callout(args: "ApiManagementArgs", store_address: Any) -> Callout:
    """Return the callout that the objects are made from; `store_address` is `host:port`, or None for SQLite."""
    files = {"config.yaml": management_config.config(args)}
    exposed = args.get("admin", {}).get("expose", False)
    flags: tuple[str, ...] = (f"--admin-port={ADMIN_PORT}", *(("--admin-address=$(POD_IP)",) if exposed else ()))
    if args.get("guardrails") is not None:
        files[GUARDRAILS_FILE] = guardrails.config(args["guardrails"])
        flags = (*flags, f"--guardrails-file={CONFIG_DIR}/{GUARDRAILS_FILE}")
    embedded = management_store.kind(args) == management_store.SQLITE
    workload = args.get("workload", {})
    pepper = args.get("pepper_secret", {})
    key = {"name": pepper.get("name", _PEPPER["name"]), "key": pepper.get("key", _PEPPER["key"])}
    pepper_variable: Manifest = {"name": "PENSTOCK_KEY_PEPPER", "valueFrom": {"secretKeyRef": key}}
    token = {"name": args.get("admin", {}).get("token_secret", NAME), "key": "admin-token", "optional": True}
    token_variable: Manifest = {"name": "PENSTOCK_ADMIN_TOKEN", "valueFrom": {"secretKeyRef": token}}
    return made(
        NAME,
        "apimgmt",
        args["namespace"],
        args["image"],
        (GRPC_PORT, HEALTH_PORT),
        files,
        workload,
        flags=flags,
        recreate=embedded,
        extra_ports=(("admin", ADMIN_PORT, exposed),),
        env=(pepper_variable, token_variable, *management_store.environment(args, store_address)),
        volumes=management_store.volumes(args),
        mounts=management_store.mounts(args),
        **({"replicas": 1} if embedded else {}),
    )


def problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_range(f"{path}.timeout_ms", args.get("timeout_ms", TIMEOUT_MS), *TIMEOUT_RANGE_MS, "ms")
    if args["mode"] not in MODES:
        yield from check_word(f"{path}.mode", args["mode"], MODES)
        return
    yield from check_mode_fields(path, args, args["mode"], _FIELDS)
    yield from management_config.problems(args, path)
    if args["mode"] == BUNDLED:
        yield from _bundled_problems(args, path)
    else:
        yield from apigee.problems(args, path)
    if args["mode"] == APIGEE or management_store.kind(args) == management_store.MEMORYSTORE:
        yield from check_cloud(path, args, "resources live in a project", f"-{NAME}")


def _bundled_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    if args.get("image") is None:
        yield ConfigError(f"{path}.image", None, "the image of Penstock's services", "Set it")
    else:
        yield from check_image(f"{path}.image", args["image"])
    if args.get("pepper_secret") is not None:
        yield from check_label(f"{path}.pepper_secret.name", args["pepper_secret"]["name"], what="a Secret's name")
    yield from workload_problems(args.get("workload", {}), f"{path}.workload")
    yield from management_store.problems(args, path)
    yield from management_config.rule_problems(args, path)
    if args.get("admin", {}).get("token_secret") is not None:
        yield from check_label(f"{path}.admin.token_secret", args["admin"]["token_secret"], what="a Secret's name")
    screens = args.get("guardrails")
    if screens is None:
        return
    yield from guardrails.problems(screens, f"{path}.guardrails")
    if screens.get("served_by") != NAME:
        expected = f"`{NAME}`: guardrails with a workload of their own are no part of this one"
        where, fix = f"{path}.guardrails.served_by", f"Set it to `{NAME}`, or leave `guardrails` out"
        yield ConfigError(where, screens.get("served_by"), expected, fix)
    if screens["namespace"] != args["namespace"]:
        where, expected = f"{path}.guardrails.namespace", f"`{args['namespace']}`, as here"
        yield ConfigError(where, screens["namespace"], expected, "Use one namespace")
