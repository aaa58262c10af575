"""Bad input of each kind gets its status and an error in OpenAI's shape, and nothing is charged."""

import json
import time
from typing import Any

import httpx
import openai
import pytest

from services.apimgmt.keys import parse
from tests.dataplane.apimgmt.declaration import ALPHA, ECHO
from tests.dataplane.apimgmt.managed import CHAT, Managed, Tenant, chat
from tests.support.stack import eventually

pytestmark = pytest.mark.xdist_group("apimgmt")

JSON = {"content-type": "application/json"}
SOON_S = 1.0
"""Key changes hold everywhere within a second."""


@pytest.fixture(scope="module")
def tenant(sqlite: Managed) -> Tenant:
    return sqlite.tenant()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Hold an answer to OpenAI's error shape, and return the error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    assert error["message"]
    return error


async def uncharged(tenant: Tenant) -> None:
    """Nothing was charged: what records there are say so, and every counter stands at zero."""
    assert all(r["costMicros"] == r["promptTokens"] == r["completionTokens"] == 0 for r in tenant.records())
    assert {r["outcome"] for r in tenant.records()} <= {"refused", "denied"}
    await tenant.balanced()
    assert set((await tenant.totals()).values()) == {0}


def flipped(key: str) -> str:
    """Return a key of the right form that differs in one character of its secret."""
    at = len(key) - 8
    return key[:at] + ("A" if key[at] != "A" else "B") + key[at + 1 :]


@pytest.mark.parametrize("stream", [False, True])
async def test_keys_that_open_nothing(tenant: Tenant, stream: bool) -> None:
    managed, key = tenant.managed, tenant.key
    other = managed.admin.post(f"/organizations/{tenant.name}/developers/ada/keys", json={}).json()["key"]
    assert parse(flipped(key))
    cases = {
        "unknown secret": (flipped(key), "invalid_api_key"),
        "unknown id": (key.replace(tenant.key_id, "a" * 16), "invalid_api_key"),
        "cut short": (key[:-5], "invalid_api_key"),
        "foreign": ("sk-proj-" + "x" * 40, "invalid_api_key"),
        "personal": (other, "invalid_api_key"),
        "too long": ("psk_" + "a" * 20_000, "invalid_api_key"),
    }
    async with managed.http(None) as http:
        for name, (credential, code) in cases.items():
            for headers in ({"authorization": f"Bearer {credential}"}, {"x-api-key": credential}):
                answer = await http.post(CHAT, json=chat(stream=stream), headers=headers)
                error = refused(answer, 401, code)
                assert answer.headers["www-authenticate"].startswith("Bearer"), name
                assert credential[-30:] not in error["message"]
        refused(await http.post(CHAT, json=chat(stream=stream)), 401, "missing_credentials")
        basic = {"authorization": f"Basic {key}"}
        refused(await http.post(CHAT, json=chat(stream=stream), headers=basic), 401, "invalid_api_key")
        both = {"authorization": f"Bearer {key}", "x-api-key": flipped(key)}
        refused(await http.post(CHAT, json=chat(stream=stream), headers=both), 400, "conflicting_credentials")
        url = f"{CHAT}?api_key={key}"
        refused(await http.post(url, json=chat(stream=stream)), 401, "missing_credentials")
    await uncharged(tenant)


def test_the_real_client_raises_its_authentication_error(tenant: Tenant) -> None:
    with tenant.managed.openai(flipped(tenant.key)) as client, pytest.raises(openai.AuthenticationError) as raised:
        client.chat.completions.create(**chat())
    assert raised.value.code == "invalid_api_key"


async def test_an_expired_key(tenant: Tenant) -> None:
    managed = tenant.managed
    issued = managed.issue(tenant.name)
    path = f"/organizations/{tenant.name}/apps/app/keys/{issued['id']}"
    async with managed.http(issued["key"]) as http:
        refused(await http.post(CHAT, json=chat(max_tokens=0)), 400, "invalid_value")
        answer = managed.admin.patch(path, json={"expires": int(time.time()) - 1})
        assert answer.status_code == 200, answer.text
        await refused_soon(http, "expired")
    await uncharged(tenant)


@pytest.mark.parametrize(("store", "pod"), [("sqlite", 0), ("valkey", 1)])
async def test_a_revoked_key_is_refused_within_a_second(request: pytest.FixtureRequest, store: str, pod: int) -> None:
    """Also by the pods that did not revoke it."""
    managed: Managed = request.getfixturevalue(store)
    tenant = managed.tenant()
    for _ in range(3):
        issued = managed.issue(tenant.name)
        async with tenant.http(issued["key"]) as http:
            assert (await http.post(CHAT, json=chat(max_tokens=0))).status_code == 400
            managed.revoke(tenant.name, issued["id"], pod=pod)
            await refused_soon(http, "revoked")
    await uncharged(tenant)


async def refused_soon(http: httpx.AsyncClient, why: str) -> None:
    """The key is refused within a second, by whichever pod is asked, and stays so."""
    began = time.monotonic()
    in_a_row = 0
    while in_a_row < 6:
        answer = await http.post(CHAT, json=chat(max_tokens=0))
        if answer.status_code == 401:
            assert why in refused(answer, 401, "invalid_api_key")["message"]
            in_a_row += 1
        else:
            assert time.monotonic() - began < SOON_S, f"still accepted after {SOON_S} s"
            in_a_row = 0


async def test_models_and_operations_that_no_product_has(sqlite: Managed) -> None:
    tenant = sqlite.tenant(product={"models": [ALPHA], "operations": [CHAT]})
    async with tenant.http() as http:
        refused(await http.post(CHAT, json=chat(model="slow")), 403, "model_not_allowed")
        embed = {"model": ALPHA, "input": "x"}
        refused(await http.post("/v1/embeddings", json=embed), 403, "operation_not_allowed")
        refused(await http.post(CHAT, json=chat(model="gpt-17")), 404, "model_not_found")
    await uncharged(tenant)
    records = await tenant.recorded(2)
    assert [(r["outcome"], r["status"]) for r in records] == [("refused", 403)] * 2


@pytest.mark.parametrize(
    ("field", "value"), [("messages", "hello"), ("temperature", "hot"), ("max_tokens", -3), ("stream", "maybe")]
)
async def test_fields_that_are_not_what_they_should_be(tenant: Tenant, field: str, value: Any) -> None:
    async with tenant.http() as http:
        answer = await http.post(CHAT, json=chat() | {field: value})
    assert answer.status_code == 400
    assert field in answer.json()["error"]["param"]
    await uncharged(tenant)


BODIES: dict[str, tuple[bytes, int]] = {
    "truncated": (json.dumps(chat()).encode()[:-4], 400),
    "no JSON": (b"model=alpha", 400),
    "no object": (b'["alpha"]', 400),
    "empty": (b"", 400),
    "nested": (b'{"model":"alpha","messages":' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    "duplicate model": (b'{"model":"alpha","messages":[{"role":"user","content":"x"}],"model":"slow"}', 400),
    "not UTF-8": (b'{"model":"alpha","messages":[{"role":"user","content":"\xff"}]}', 400),
    "oversized": (json.dumps(chat("x" * 11_000_000)).encode(), 413),
}


@pytest.mark.parametrize("name", BODIES)
async def test_bodies_that_cannot_be_read(tenant: Tenant, name: str) -> None:
    body, status = BODIES[name]
    async with tenant.http() as http:
        answer = await http.post(CHAT, content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    await uncharged(tenant)


async def test_of_two_equal_keys_none_is_believed(sqlite: Managed) -> None:
    tenant = sqlite.tenant([{"name": "tokens", "scope": "key", "kind": "tokens", "amount": 300, "window": "month"}])
    messages = b'[{"role":"user","content":"x"}]'
    body = b'{"model":"alpha","ignore_eos":true,"max_tokens":%d,"messages":' + messages + b',"max_tokens":%d}'
    async with tenant.http() as http:
        for first, second in ((1, 900), (900, 2)):
            answer = await http.post(CHAT, content=body % (first, second), headers=JSON)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "duplicate_parameter", "max_tokens")
    await tenant.balanced()


FORGED = {
    "x-penstock-user": "mallory",
    "x-penstock-team": "gold",
    "X-Penstock-Organization": "other",
    "x-penstock-app": "other",
    "x-penstock-key": "a" * 16,
    "x-penstock-product": "free",
    "x-penstock-agent": "boss",
    "x-penstock-anything": "boss",
}


async def test_forged_identities_reach_neither_the_replica_nor_the_ledger(sqlite: Managed) -> None:
    tenant = sqlite.tenant(limits=())
    async with tenant.http() as http:
        answer = await http.post(CHAT, json=chat(model=ECHO), headers={**FORGED, "x_penstock_user": "mallory"})
    assert answer.status_code == 200
    arrived = [(name.lower(), value) for name, value in answer.json()["headers"]]
    ours = {name: value for name, value in arrived if "penstock" in name}
    assert len(ours) == len([name for name, _ in arrived if "penstock" in name]), "each once"
    expected = {
        "x-penstock-organization": tenant.name,
        "x-penstock-team": "red",
        "x-penstock-user": "ada",
        "x-penstock-app": "app",
        "x-penstock-key": tenant.key_id,
        "x-penstock-product": tenant.name,
    }
    assert {name: ours[name] for name in expected} == expected
    assert not {"mallory", "gold", "other", "boss", "free"} & set(ours.values())
    assert not {"authorization", "x-api-key"} & {name for name, _ in arrived}
    (record,) = await tenant.recorded(1)
    assert (record["user"], record["team"], record["agent"], record["app"]) == ("ada", "red", "", "app")
    assert (record["outcome"], record["estimated"]) == ("ok", True), "an answer without usage is estimated"


async def test_a_person_or_app_that_is_no_longer_active(sqlite: Managed) -> None:
    tenant = sqlite.tenant()
    async with tenant.http() as http:
        for path, code in (("apps/app", "app_inactive"), ("developers/ada", "developer_inactive")):
            full = f"/organizations/{tenant.name}/{path}"
            body = {k: v for k, v in sqlite.admin.get(full).json().items() if k != "metadata"}
            sqlite.put(full, {**body, "active": False})

            async def closed(code: str = code) -> bool:
                return (await http.post(CHAT, json=chat())).text.find(code) > 0

            await eventually(closed, code, 2)
            sqlite.put(full, body)
