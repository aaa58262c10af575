"""What clients send in the names that the path trusts: it changes nothing, and nothing of it reaches a replica."""

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.dataplane.echo import ADAPTER, ALPHA, BETA
from tests.support.http2 import Http2Client
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("echo-stack")

EVIL = "evil-value"
COMPLETIONS = "/v1/completions"
JSON = ("content-type", "application/json")
TRUSTED = re.compile(r"x[-_](gateway|llm[-_]d|penstock|envoy|slo|prefiller|encoder|data[-_]parallel)[-_].*", re.I)

DESTINATION = "x-gateway-destination-endpoint"
NAMES = [
    "x-gateway-model-name",
    "x-gateway-base-model-name",
    DESTINATION,
    f"{DESTINATION}-subset",
    f"{DESTINATION}-served",
    "x-gateway-inference-objective",
    "x-gateway-inference-fairness-id",
    "x-gateway-anything-at-all",
    "x-llm-d-model-name",
    "x-llm-d-base-model-name",
    "x-llm-d-destination-endpoint",
    "x-llm-d-inference-objective",
    "x-penstock-identity",
    "x-penstock-replica",
    "x-prefiller-host-port",
    "x-data-parallel-host-port",
    "x-session-token",
    "test-epp-endpoint-selection",
]
ENVOY_NAMES = {
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-retry-on": "5xx",
    "x-envoy-max-retries": "7",
    "x-envoy-hedge-on-per-try-timeout": "true",
    "x-envoy-original-path": "/v1/evil-value",
    "x-envoy-decorator-operation": EVIL,
    "x-envoy-force-trace": "true",
    "x-envoy-internal": "true",
    "x-envoy-external-address": "203.0.113.9",
    "x-envoy-upstream-alt-stat-name": EVIL,
}


@pytest.fixture
async def http(echo: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=echo.url, trust_env=False, timeout=20) as client:
        yield client


def port_of(echo: Stack, model: str) -> int:
    return echo.pieces[f"{model}-a-0"].port


def spellings(name: str) -> list[str]:
    """Return a header's name in several cases, and with the underscores that some servers take for dashes."""
    return [name, name.upper(), name.title(), name.replace("-", "_"), name.replace("-", "_", 1)]


async def ask(http: httpx.AsyncClient, model: str, headers: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    body = json.dumps({"model": model, "prompt": "x", **more}).encode()
    answer = await http.post(COMPLETIONS, content=body, headers=[JSON, *headers])
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def trusted(report: dict[str, Any]) -> dict[str, list[str]]:
    """Return what arrived in names that the path trusts, by lower case name."""
    found: dict[str, list[str]] = {}
    for name, value in report["headers"]:
        if TRUSTED.fullmatch(name) or name.lower() in NAMES:
            found.setdefault(name.lower(), []).append(value)
    return found


def of_the_path(echo: Stack, model: str, base: str | None = None) -> dict[str, list[str]]:
    """Return what the path itself sends to a replica."""
    own = {"x-gateway-model-name": [model], DESTINATION: [f"127.0.0.1:{port_of(echo, base or model)}"]}
    own["x-envoy-external-address"] = ["127.0.0.1"]  # Envoy's own: where the request came from
    return own | ({"x-gateway-base-model-name": [base]} if base else {})


@contextmanager
def trap() -> Iterator[str]:
    """Listen on a port that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


async def test_without_smuggling(echo: Stack, http: httpx.AsyncClient) -> None:
    """What the path sends by itself: the measure for all that follows."""
    for model, base in ((ALPHA, None), (ADAPTER, ALPHA), (BETA, None)):
        report = await ask(http, model, [])
        assert report["port"] == port_of(echo, base or model)
        assert trusted(report) == of_the_path(echo, model, base)


@pytest.mark.parametrize("name", NAMES)
async def test_a_trusted_name_has_no_effect(echo: Stack, http: httpx.AsyncClient, name: str) -> None:
    for spelling in spellings(name):
        for value in (EVIL, BETA, f"127.0.0.1:{port_of(echo, BETA)}"):
            report = await ask(http, ALPHA, [(spelling, value)])
            assert report["port"] == port_of(echo, ALPHA), (spelling, value)
            assert trusted(report) == of_the_path(echo, ALPHA), (spelling, value)
            assert value not in {got for _, got in report["headers"]}, (spelling, value)


@pytest.mark.parametrize("spelling", range(5))
async def test_all_of_them_at_once_and_twice(echo: Stack, http: httpx.AsyncClient, spelling: int) -> None:
    headers = [(spellings(name)[spelling], EVIL) for name in NAMES for _ in range(2)]
    for model, base in ((ALPHA, None), (ADAPTER, ALPHA), (BETA, None)):
        report = await ask(http, model, headers)
        assert report["port"] == port_of(echo, base or model)
        assert trusted(report) == of_the_path(echo, model, base)
        assert EVIL not in json.dumps(report)


@pytest.mark.parametrize("suffix", ["", "-subset", "-served"])
async def test_no_destination_of_a_client_is_contacted(echo: Stack, http: httpx.AsyncClient, suffix: str) -> None:
    with trap() as address:
        for value in (address, f"{address},127.0.0.1:{port_of(echo, BETA)}", f"127.0.0.1:{port_of(echo, BETA)}"):
            headers = [(spelling, value) for name in (DESTINATION + suffix,) for spelling in spellings(name)]
            report = await ask(http, ALPHA, headers)
            assert report["port"] == port_of(echo, ALPHA)
            assert trusted(report) == of_the_path(echo, ALPHA)


async def test_what_steers_envoy_has_no_effect(echo: Stack, http: httpx.AsyncClient) -> None:
    """The answer takes longer than the timeouts that the client asks for; one attempt is made."""
    report = await ask(http, ALPHA, list(ENVOY_NAMES.items()), delay=0.3)
    assert report["path"] == COMPLETIONS
    assert trusted(report) == of_the_path(echo, ALPHA)
    report = await ask(http, ALPHA, [(name.title(), value) for name, value in ENVOY_NAMES.items()] * 2, delay=0.3)
    assert trusted(report) == of_the_path(echo, ALPHA)


@pytest.mark.parametrize("name", ["x-envoy-attempt-count", "x-envoy-peer-metadata", "x-envoy-anything-at-all"])
async def test_no_header_of_envoy_s_family_arrives(echo: Stack, http: httpx.AsyncClient, name: str) -> None:
    report = await ask(http, ALPHA, [(name, EVIL)])
    assert trusted(report) == of_the_path(echo, ALPHA)


async def test_a_header_cannot_give_a_model_to_what_has_none(echo: Stack, http: httpx.AsyncClient) -> None:
    """A request that the body router refuses or answers itself reaches no replica, whatever its headers say."""
    before = await seen(http, echo)
    headers = [JSON, ("x-gateway-model-name", ALPHA), (DESTINATION, f"127.0.0.1:{port_of(echo, ALPHA)}")]
    for path, body in ((COMPLETIONS, b"{}"), (COMPLETIONS, b'{"model":"other"}'), ("/health", b""), ("/seen", b"{}")):
        answer = await http.post(path, content=body, headers=headers)
        assert answer.status_code in (400, 404), path
    for path in ("/health", "/metrics", "/seen", "/v1/models/other"):
        assert (await http.get(path, headers=headers)).status_code == 404, path
    assert await seen(http, echo) == before


async def seen(http: httpx.AsyncClient, echo: Stack) -> list[int]:
    """Return how many requests each replica has had."""
    return [int((await http.get(f"http://127.0.0.1:{port_of(echo, model)}/seen")).text) for model in (ALPHA, BETA)]


def test_over_http2_and_in_trailers(echo: Stack) -> None:
    body = json.dumps({"model": ALPHA, "prompt": "x"}).encode()
    evil = [(name, EVIL) for name in NAMES] + [(DESTINATION, f"127.0.0.1:{port_of(echo, BETA)}")]
    with trap() as address, Http2Client(echo.port) as client:
        fields = [*evil, (DESTINATION, address)]
        answer = client.post(COMPLETIONS, [JSON, *fields], body, trailers=fields)
    assert answer.status == 200, answer.body
    report = json.loads(answer.body)
    assert report["port"] == port_of(echo, ALPHA)
    assert trusted(report) == of_the_path(echo, ALPHA)
    assert EVIL not in json.dumps(report)
    assert address not in json.dumps(report)


async def test_connection_headers_cannot_take_the_path_s_own_away(echo: Stack, http: httpx.AsyncClient) -> None:
    """Fields that `connection` names are dropped by the next hop: those of the path must stay all the same."""
    report = await ask(http, ALPHA, [("connection", f"keep-alive, x-gateway-model-name, {DESTINATION}")])
    assert report["port"] == port_of(echo, ALPHA)
    assert trusted(report) == of_the_path(echo, ALPHA)
