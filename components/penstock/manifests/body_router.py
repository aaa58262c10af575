"""The body router: the callout that reads the model's name from the request body."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from .._naming import check_label
from ..errors import ConfigError
from .callout import Callout
from .common import check_image, check_model_name, check_quantity, check_range, check_word
from .keys import camel, plain

if TYPE_CHECKING:
    from ..body_router import BodyRouterArgs

NAME = "body-router"
GRPC_PORT = 9004
HEALTH_PORT = 9005
"""Ports of the upstream body-based router, kept for familiarity. Source: Gateway API Inference Extension 1.5, bbr."""

MAX_BODY_BYTES = 10 * 1024 * 1024
"""Default cap of a request body."""

MAX_BODY_BYTES_LIMIT = 64 * 1024 * 1024
"""Highest cap: a parsed body takes many times its size in memory."""

STREAM_TIMEOUT_S = 3600
"""Default time for one request at the router: a pool's answer may take less, an upload over a thin line more."""

UNIQUE_NAME = "a name that no other model or adapter has"

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

ROUTING = ("aliases", "prompt_routes", "classifiers")
"""Arguments that are handed on as they are, with keys in camelCase."""

LOG_LEVELS = ("debug", "info", "warning", "error")


def config(args: "BodyRouterArgs") -> str:
    """Return the body router's configuration file (YAML): served models, their adapters, and limits."""
    models = [
        {"name": model["name"], "adapters": list(model["adapters"])}
        if model.get("adapters")
        else {"name": model["name"]}
        for model in args["models"]
    ]
    routing: Any = args
    settings = {
        "models": models,
        **{camel(name): [plain(item) for item in routing[name]] for name in ROUTING if routing.get(name)},
        "maxBodyBytes": args.get("max_body_bytes", MAX_BODY_BYTES),
        "allowClientHeaders": list(args.get("allow_client_headers", [])),
    }
    return yaml.safe_dump(settings, sort_keys=False)


def callout(args: "BodyRouterArgs") -> Callout:
    """Return the callout that the objects are made from."""
    return Callout(
        name=NAME,
        namespace=args["namespace"],
        module="bodyrouter",
        role="callout",
        image=args["image"],
        grpc_port=GRPC_PORT,
        health_port=HEALTH_PORT,
        config={"config.yaml": config(args)},
        replicas=args.get("replicas", 2),
        drain_timeout_s=args.get("drain_timeout_s", 30),
        log_level=args.get("log_level", "info"),
        tls_secret=args.get("tls_secret"),
        cpu=args.get("cpu", "500m"),
        memory=args.get("memory", "512Mi"),
        monitoring=args.get("monitoring", False),
    )


def problems(args: "BodyRouterArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_image(f"{path}.image", args["image"])
    yield from check_range(f"{path}.replicas", args.get("replicas", 2), 1, 100, "pods")
    yield from check_range(f"{path}.drain_timeout_s", args.get("drain_timeout_s", 30), 1, 3600, "seconds")
    stream_s = args.get("stream_timeout_s", STREAM_TIMEOUT_S)
    yield from check_range(f"{path}.stream_timeout_s", stream_s, 1, 2**31 - 1, "seconds")
    limit = args.get("max_body_bytes", MAX_BODY_BYTES)
    yield from check_range(f"{path}.max_body_bytes", limit, 1024, MAX_BODY_BYTES_LIMIT, "bytes")
    yield from check_quantity(f"{path}.cpu", args.get("cpu", "500m"))
    yield from check_quantity(f"{path}.memory", args.get("memory", "512Mi"))
    yield from check_log_level(f"{path}.log_level", args.get("log_level", "info"))
    for index, header in enumerate(args.get("allow_client_headers", [])):
        if not _HEADER.fullmatch(header):
            yield ConfigError(f"{path}.allow_client_headers[{index}]", header, "a header's name", "Correct it")
    yield from _model_problems(args, path)
    yield from _routing_problems(args, path)


def check_log_level(path: str, value: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` is a log level of the services."""
    if value not in LOG_LEVELS:
        yield ConfigError(path, value, f"one of {', '.join(LOG_LEVELS)}", "Choose one of them")


def _model_problems(args: "BodyRouterArgs", path: str) -> Iterator[ConfigError]:
    if not args["models"]:
        yield ConfigError(f"{path}.models", [], "at least one served model", "Declare the models")
    seen: dict[str, str] = {}
    for index, model in enumerate(args["models"]):
        base = f"{path}.models[{index}]"
        named = [(f"{base}.name", model["name"])]
        named += [(f"{base}.adapters[{number}]", name) for number, name in enumerate(model.get("adapters", []))]
        for where, name in named:
            yield from check_model_name(where, name)
            if name in seen:
                fix = f"Rename it: {seen[name].lstrip('.')} has the same name"
                yield ConfigError(where, name, UNIQUE_NAME, fix)
            seen.setdefault(name, where)


def _routing_problems(args: "BodyRouterArgs", path: str) -> Iterator[ConfigError]:
    """Check that aliases are new names, and that all other names are known."""
    served = [model["name"] for model in args["models"]]
    served += [name for model in args["models"] for name in model.get("adapters", [])]
    names: list[str] = []
    for index, alias in enumerate(args.get("aliases", [])):
        where = f"{path}.aliases[{index}]"
        yield from check_model_name(f"{where}.name", alias["name"])
        if alias["name"] in (*served, *names):
            yield ConfigError(f"{where}.name", alias["name"], UNIQUE_NAME, "Rename it")
        names.append(alias["name"])
        yield from check_word(f"{where}.model", alias["model"], served)
    for index, route in enumerate(args.get("prompt_routes", [])):
        for field, value in (("model", route["model"]), ("to", route["to"])):
            yield from check_word(f"{path}.prompt_routes[{index}].{field}", value, (*served, *names))
    for index, classifier in enumerate(args.get("classifiers", [])):
        where = f"{path}.classifiers[{index}]"
        yield from check_word(f"{where}.model", classifier["model"], (*served, *names))
        yield from check_range(f"{where}.timeout_ms", classifier.get("timeout_ms", 500), 10, 10_000, "ms")
        if not classifier["url"].startswith(("https://", "http://")):
            expected = "a URL, https unless it is in the cluster"
            yield ConfigError(f"{where}.url", classifier["url"], expected, "Correct it")
