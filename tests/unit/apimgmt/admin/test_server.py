"""The server beside the data path: TLS, ports, signals; the OpenAPI description; no input that makes it fail."""

import asyncio
import signal
import socket
import ssl
import string
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given, settings, strategies

from services.apimgmt.admin.app import VERSION, create_app
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.examples import EXAMPLES
from services.apimgmt.admin.server import start_admin_server
from services.apimgmt.domain import ENTITIES, Kind
from services.extproc.tls import Certificates
from tests.unit.apimgmt.admin import support
from tests.unit.apimgmt.admin.conftest import serve
from tests.unit.apimgmt.admin.support import NOW, PEPPER, TOKEN, Api


async def test_tls_with_a_certificate_that_can_be_replaced(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.apimgmt.admin.server.POLL_S", 0.01)
    certificates = Certificates.of("self-signed", "admin", "127.0.0.1", None)
    assert certificates is not None
    server = await start_admin_server(create_app(api.context), "127.0.0.1", 0, certificates)
    try:
        first = await _served(server.port)
        assert ssl.PEM_cert_to_DER_cert(certificates.pair[1].decode()) == first
        tls = ssl.create_default_context(cadata=certificates.pair[1].decode())
        async with httpx.AsyncClient(verify=tls) as client:
            answer = await client.get(
                f"https://localhost:{server.port}/admin/v1/me", headers={"authorization": f"Bearer {TOKEN}"}
            )
        assert answer.json()["role"] == "admin"
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        certificates._pair = certificates._make()
        async with asyncio.timeout(10):
            while await _served(server.port) == first:  # noqa: ASYNC110 - polled with a deadline
                await asyncio.sleep(0.01)
        assert await _served(server.port) == ssl.PEM_cert_to_DER_cert(certificates.pair[1].decode())
    finally:
        await server.close()


async def _served(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    del reader
    return certificate


async def test_a_port_that_is_taken_is_an_error(api: Api) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await start_admin_server(create_app(api.context), "127.0.0.1", taken.getsockname()[1], None)


async def test_signals_stay_with_the_process(api: Api) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    server = await start_admin_server(create_app(api.context), "127.0.0.1", 0, None)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    await server.close()
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as client:
            await client.get(f"http://127.0.0.1:{server.port}/admin/v1/me")


def test_short_admin_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 32"):
        AdminContext(None, support.settings(tmp_path), PEPPER, lambda: float(NOW), "t" * 31)  # type: ignore[arg-type]


async def test_without_an_admin_token_only_people_get_in(api: Api) -> None:
    api.context.admin_token = None
    assert (await api.call("admin", "GET", "/admin/v1/me")).status_code == 401
    assert (await api.call("root@acme", "GET", "/admin/v1/me")).json()["role"] == "admin"


async def test_the_description_is_whole(api: Api) -> None:
    document = (await api.call("ada@acme", "GET", "/admin/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == VERSION
    assert document["security"] == [{"bearer": []}]
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (path, method)
            assert method not in ("put", "patch") or "requestBody" in operation or "subscriptions" in path
    references = set(_references(document))
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


@pytest.mark.parametrize("kind", Kind)
async def test_examples_fit_their_schemas(api: Api, kind: Kind) -> None:
    document = create_app(api.context).openapi()
    cls = ENTITIES[kind]
    body = {**EXAMPLES[kind], "name": "x", **({"organization": "acme"} if cls.scoped else {})}
    schema = {"$ref": f"#/components/schemas/{cls.__name__}", "components": document["components"]}
    jsonschema.validate(body, schema, jsonschema.Draft202012Validator)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for item in value.values() for r in _references(item)]
    return [r for item in value for r in _references(item)] if isinstance(value, list) else []


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=20),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = sorted({f.alias or n for cls in ENTITIES.values() for n, f in cls.model_fields.items()})
BODIES = strategies.dictionaries(strategies.sampled_from(FIELDS), JSON, max_size=6) | JSON
TEXT = strategies.text(strategies.characters(codec="utf-8"), max_size=40)
PATHS = strategies.sampled_from(
    [
        *(f"{'organizations/acme/' if cls.scoped else ''}{kind.value}/x" for kind, cls in ENTITIES.items()),
        "organizations/acme/apps/bot/keys",
        "organizations/acme/developers/ada@acme/keys",
        "organizations/acme/apps/bot/subscriptions/chat",
        "keyValueMaps/tickets/entries/x",
        "usage",
        "statement",
        "audit",
        "ledger",
        "subscriptions",
        "apps",
        "import",
    ]
)


async def test_no_input_makes_it_fail(tmp_path: Path) -> None:
    """Whatever is sent is answered below 500: run in one loop, since starting a server for each would take minutes."""
    samples: list[tuple[str, str, Any, dict[str, str], str]] = []
    names = strategies.sampled_from(["after", "limit", "since", "until", "by", "user", "bucket", "status", "month"])

    @settings(max_examples=300, derandomize=True, deadline=None, database=None)
    @given(
        strategies.sampled_from(["GET", "PUT", "PATCH", "POST", "DELETE"]),
        PATHS,
        BODIES,
        strategies.dictionaries(names, TEXT, max_size=1),
        TEXT,
    )
    def collect(method: str, path: str, body: Any, parameters: dict[str, str], tag: str) -> None:
        samples.append((method, path, body, parameters, tag))

    collect()
    seen = set()
    async with serve(support.settings(tmp_path)) as api:
        api.context.seal = lambda name, entry, value: value
        await api.app()
        for method, path, body, parameters, tag in samples:
            printable = "".join(c for c in tag if c in string.ascii_letters + string.digits + '"*,') or "*"
            answer = await api.call(
                "admin",
                method,
                f"/admin/v1/{path}",
                json=body,
                params=parameters,
                headers={"if-match": printable},
            )
            assert answer.status_code < 500, (method, path, body, parameters, answer.text)
            seen.add(answer.status_code)
    assert {400, 404, 405, 412, 422} <= seen
