"""JWTs of an issuer whose keys come from a real server: taken as the app that they name, or refused and not charged."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.dataplane.apimgmt.conftest import KEY
from tests.dataplane.apimgmt.declaration import AUDIENCE
from tests.dataplane.apimgmt.managed import CHAT, Managed, Tenant, chat
from tests.dataplane.apimgmt.test_refusals import refused, uncharged
from tests.support.stack import eventually
from tests.support.token_issuer import Issuer, SigningKey, encoded

pytestmark = pytest.mark.xdist_group("apimgmt")

STRANGER = SigningKey("stranger")
IMPOSTOR = SigningKey(KEY.id)
SKEW_S = 60


@pytest.fixture(scope="module")
def tenant(sqlite: Managed) -> Tenant:
    return sqlite.tenant(app={"oauthClientId": "service-7"})


def claims(issuer: Issuer, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {
        "iss": issuer.url,
        "aud": AUDIENCE,
        "azp": "service-7",
        "sub": "s",
        "iat": now,
        "exp": now + 300,
        **changes,
    }
    return {name: value for name, value in given.items() if value is not None}


def unsigned(issuer: Issuer) -> str:
    return f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(claims(issuer))}."


def signed_with_the_public_key(issuer: Issuer) -> str:
    """HMAC with what everybody knows as the secret (RFC 8725, section 2.1)."""
    text = f"{encoded({'alg': 'HS256', 'kid': KEY.id})}.{encoded(claims(issuer))}"
    mac = hmac.new(KEY.pem(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{encoded(mac)}"


def changed(issuer: Issuer) -> str:
    """A genuine token whose claims were changed afterwards."""
    header, payload, signature = KEY.sign(claims(issuer)).split(".")
    found = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{header}.{encoded({**found, 'azp': 'other'})}.{signature}"


BAD: dict[str, Callable[[Issuer], str]] = {
    "none": unsigned,
    "HMAC": signed_with_the_public_key,
    "changed": changed,
    "impostor": lambda issuer: IMPOSTOR.sign(claims(issuer)),
    "unknown kid": lambda issuer: STRANGER.sign(claims(issuer)),
    "wrong audience": lambda issuer: KEY.sign(claims(issuer, aud="elsewhere")),
    "no audience": lambda issuer: KEY.sign(claims(issuer, aud=None)),
    "wrong issuer": lambda issuer: KEY.sign(claims(issuer, iss="https://id.example.com")),
    "expired": lambda issuer: KEY.sign(claims(issuer, exp=int(time.time()) - SKEW_S - 5)),
    "no expiry": lambda issuer: KEY.sign(claims(issuer, exp=None)),
    "not yet": lambda issuer: KEY.sign(claims(issuer, nbf=int(time.time()) + SKEW_S + 30)),
    "issued later": lambda issuer: KEY.sign(claims(issuer, iat=int(time.time()) + SKEW_S + 30)),
    "two parts": lambda issuer: KEY.sign(claims(issuer)).rpartition(".")[0],
}


@pytest.mark.parametrize("name", BAD)
async def test_tokens_that_open_nothing(tenant: Tenant, issuer: Issuer, name: str) -> None:
    token = BAD[name](issuer)
    async with tenant.http(token) as http:
        for stream in (False, True):
            answer = await http.post(CHAT, json=chat(stream=stream))
            code = "invalid_api_key" if name == "two parts" else "invalid_token"
            error = refused(answer, 401, code)
            assert "invalid_token" in answer.headers["www-authenticate"]
            assert token[-30:] not in error["message"]
    await uncharged(tenant)


async def test_a_token_of_an_unknown_client(tenant: Tenant, issuer: Issuer) -> None:
    async with tenant.http(KEY.sign(claims(issuer, azp="nobody"))) as http:
        refused(await http.post(CHAT, json=chat()), 403, "unknown_client")
    await uncharged(tenant)


@pytest.mark.parametrize(
    "times", [{}, {"exp": -SKEW_S + 20}, {"nbf": SKEW_S - 20}, {"iat": SKEW_S - 20}], ids=lambda t: "".join(t) or "now"
)
async def test_a_good_token_is_the_app_that_it_names(sqlite: Managed, issuer: Issuer, times: dict[str, int]) -> None:
    """Also where the clocks of gateway and issuer are less apart than is allowed."""
    client = f"service-{time.time_ns()}"
    tenant = sqlite.tenant(app={"oauthClientId": client})
    given = {name: int(time.time()) + seconds for name, seconds in times.items()}
    with sqlite.openai(KEY.sign(claims(issuer, azp=client, **given))) as openai:
        answer = openai.chat.completions.create(**chat())
        list(openai.chat.completions.create(**chat(stream=True)))
    records = await tenant.recorded(2)
    assert {(r["credential"], r["key"], r["app"], r["user"]) for r in records} == {("jwt", "", "app", "ada")}
    assert answer.usage is not None
    assert records[0]["completionTokens"] == answer.usage.completion_tokens


async def test_keys_that_the_issuer_publishes_later_are_found(sqlite: Managed, issuer: Issuer) -> None:
    tenant = sqlite.tenant(app={"oauthClientId": "rotating"})
    later = SigningKey("later")
    issuer.publish(KEY, later)
    try:
        async with tenant.http(later.sign(claims(issuer, azp="rotating"))) as http:

            async def accepted() -> bool:
                return (await http.post(CHAT, json=chat())).status_code == 200

            await eventually(accepted, "the new key", 15)
    finally:
        issuer.publish(KEY)
