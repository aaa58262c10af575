"""Two small callouts for chains: `python -m tests.support.small_callout --filter=stamp|censor`, and their objects.

`stamp` marks each response with a header. `censor` refuses requests and responses by a word, and replaces another one.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock._labels import Role
from penstock.manifests import callout as manifests

from cli.graph.model import Graph, Resource
from services.extproc.api import Answer, BodyMode, ChunkAnswer, Exchange, Filter, FilterStream, deny
from services.extproc.serve import Service, main

REFUSED, POISON = b"open-the-vault", b"poison"
WORD, REPLACEMENT = b"frog", b"newt"
FLAG = "x-test-flag"
STAMP = "x-test-stamp"


class Stamp(Filter):
    """Marks responses."""

    name = "stamp"

    def open(self, exchange: Exchange) -> FilterStream:
        return _StampStream(exchange)


class _StampStream(FilterStream):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_response_headers(self) -> Answer:
        self._exchange.response_changes.set[STAMP] = "seen"
        return None


class Censor(Filter):
    """Refuses `REFUSED` in requests, the flag `bad` and `POISON` in responses; replaces `WORD` by one as long."""

    name = "censor"
    request_body = BodyMode.WHOLE
    response_body = BodyMode.CHUNKS

    def open(self, exchange: Exchange) -> FilterStream:
        return _CensorStream(exchange)


class _CensorStream(FilterStream):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_request_body(self) -> Answer:
        if REFUSED in self._exchange.request_body:
            return deny(403, "The prompt is not allowed.", code="prompt_refused")
        return None

    def on_response_headers(self) -> Answer:
        if self._exchange.response_headers.get(FLAG) == "bad":
            return deny(403, "The answer is not allowed.", code="answer_refused")
        return None

    def on_response_chunk(self, chunk: bytes, last: bool) -> ChunkAnswer:
        if POISON in chunk:
            return deny(403, "The answer goes too far.", code="answer_cut")
        return chunk.replace(WORD, REPLACEMENT)


FILTERS: Mapping[str, type[Filter]] = {"stamp": Stamp, "censor": Censor}
EVENTS = {
    # It does without bodies, but an Envoy of 1.40 cuts responses short that an inner callout streams while an outer one
    # works on their headers alone (envoyproxy/envoy#41654).
    "stamp": ["RequestHeaders", "ResponseHeaders", "ResponseBody"],
    "censor": [f"{side}{part}" for side in ("Request", "Response") for part in ("Headers", "Body", "Trailers")],
}


def extension(name: str) -> dict[str, Any]:
    """Return the setting (an entry of `callouts`) that puts a filter into the traffic extension."""
    modes = {"requestBodyMode": "FullDuplexStreamed", "responseBodyMode": "FullDuplexStreamed"}
    return {"name": name, "service": name, "port": 9004, "events": EVENTS[name]} | (modes if name == "censor" else {})


def declare(graph: Graph) -> Graph:
    """Return the graph with the workloads of both callouts."""
    resources = [
        Resource(f"kubernetes:{item['apiVersion']}:{item['kind']}", f"{name}-{item['kind']}", None, True, item)
        for name in FILTERS
        for item in _objects(name)
    ]
    return replace(graph, resources=(*graph.resources, *resources))


def _objects(name: str) -> list[dict[str, Any]]:
    role: Role = "callout"
    made = manifests.Callout(
        name=name, namespace="inference", module=name, role=role, image="example/test:1", grpc_port=9004,
        health_port=9005, config={"config.yaml": "{}"}, flags=(f"--filter={name}",),
    )  # fmt: skip
    deployment = manifests.deployment(made)
    command = ["python", "-m", "tests.support.small_callout"]
    deployment["spec"]["template"]["spec"]["containers"][0]["command"] = command
    return [manifests.config_map(made), deployment, manifests.service(made), manifests.health_policy(made)]


def _build(flags: argparse.Namespace) -> Service:
    return Service([FILTERS[flags.filter]()])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--filter", choices=FILTERS, required=True)


if __name__ == "__main__":
    sys.exit(main("small-callout", _build, _add_arguments, {"grpc_port": 9004, "health_port": 9005}))
