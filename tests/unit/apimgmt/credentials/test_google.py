"""Google's tokens, against a stand-in for Google's endpoints on this machine."""

import asyncio
import json

import pytest

from services.apimgmt.call import Credential
from services.apimgmt.jwt import cache
from services.apimgmt.jwt.settings import GOOGLE_ISSUER
from tests.support.token_issuer import SigningKey, token_issuer
from tests.unit.apimgmt.credentials.world import CLIENT, NOW, answer, call, error, world

TOKEN = "ya29.a0Af-test_token"
AUDIENCE = "https://ai.example.internal"
KEY = SigningKey("google")


@pytest.fixture
async def google():
    async with token_issuer() as running:
        running.publish(KEY)
        yield running


def tell(google, status=200, **info):
    found = {"azp": CLIENT, "aud": CLIENT, "exp": str(int(NOW) + 600), "expires_in": "600", "scope": "openid", **info}
    google.answers["/tokeninfo"] = (status, json.dumps({k: v for k, v in found.items() if v is not None}).encode())


def settings(google, **more):
    uris = {"jwksUri": google.url + "/keys", "tokenInfoUri": google.url + "/tokeninfo"}
    return {"google": {"audiences": [AUDIENCE], **uris, **more}}


async def ask(policy, token=TOKEN):
    made = call(("authorization", f"Bearer {token}"))
    return made, await answer(policy.check(made))


async def test_an_access_token_is_asked_about_once_and_kept_out_of_the_url(google):
    tell(google)
    async with world() as w:
        policy = w.credentials(**settings(google))
        for _ in range(3):
            made, reply = await ask(policy)
            assert reply is None
            assert (made.caller.app, made.caller.credential) == ("chat", Credential.GOOGLE)
        assert google.asked == ["POST /tokeninfo"]
        assert google.authorizations == [f"bearer {TOKEN}".lower()]
        w.clock.now = NOW + 600
        assert error((await ask(policy))[1])["reason"] == "token_expired"
        await policy.stop()


async def test_requests_with_one_token_ask_once(google):
    tell(google)
    google.gate = asyncio.Event()
    async with world() as w:
        policy = w.credentials(**settings(google))
        asked = [asyncio.ensure_future(ask(policy)) for _ in range(20)]
        await asyncio.sleep(0)
        google.gate.set()
        assert all(reply is None for _, reply in await asyncio.gather(*asked))
        assert len(google.asked) == 1
        await policy.stop()


@pytest.mark.parametrize(
    ("status", "info", "expected"),
    [
        (400, {}, (401, "google_token_invalid")),
        (401, {}, (401, "google_token_invalid")),
        (500, {}, (503, "issuer_unavailable")),
        (429, {}, (503, "issuer_unavailable")),
        (200, {"exp": None}, (401, "token_without_expiry")),
        (200, {"exp": "soon"}, (401, "token_without_expiry")),
        (200, {"exp": True}, (401, "token_without_expiry")),
        (200, {"exp": str(int(NOW))}, (401, "token_expired")),
        (200, {"azp": None, "aud": None}, (401, "token_without_client")),
        (200, {"azp": "stranger"}, (403, "unknown_client")),
        (200, {"scope": "email"}, (403, "insufficient_scope")),
    ],
)
async def test_access_tokens_that_are_not_accepted(google, status, info, expected):
    tell(google, status, **info)
    async with world() as w:
        policy = w.credentials(**settings(google, requiredScopes=["openid"]))
        found = error((await ask(policy))[1])
        assert (found["status"], found["reason"]) == expected
        assert TOKEN not in json.dumps(found, default=str)
        await policy.stop()


async def test_a_refused_token_is_asked_about_again_after_a_while_and_trouble_at_once(google):
    async with world() as w:
        policy = w.credentials(**settings(google))
        tell(google, 400)
        for _ in range(3):
            assert (await ask(policy))[1].status == 401
        assert len(google.asked) == 1
        w.monotonic.now += cache.REFUSED_S
        tell(google, 500)
        for _ in range(2):
            assert (await ask(policy))[1].status == 503
        assert len(google.asked) == 3
        tell(google)
        assert (await ask(policy))[1] is None
        await policy.stop()


async def test_identity_tokens_are_googles_jwts(google):
    async with world() as w:
        policy = w.credentials(**settings(google, userClaim="email"))
        claims = {"iss": GOOGLE_ISSUER, "aud": AUDIENCE, "azp": CLIENT, "exp": NOW + 600, "email": "bot@example.com"}
        made, reply = await ask(policy, KEY.sign({**claims, "email_verified": True}))
        assert reply is None
        assert (made.caller.credential, made.caller.user) == (Credential.GOOGLE, "bot@example.com")
        for more, reason in (
            ({"email_verified": False}, "token_without_user"),
            ({"aud": "https://other.example"}, "wrong_audience"),
            ({"iss": "accounts.google.com"}, "unknown_issuer"),
        ):
            assert error((await ask(policy, KEY.sign({**claims, **more})))[1])["reason"] == reason
        await policy.stop()


@pytest.mark.parametrize("more", [{"accessTokens": False}, None])
async def test_google_is_not_asked_where_the_settings_do_not_say_so(google, more):
    async with world() as w:
        policy = w.credentials(**({} if more is None else settings(google, **more)))
        assert error((await ask(policy))[1])["reason"] == "malformed_key"
        assert google.asked == []
        await policy.stop()


async def test_the_cache_of_tokens_is_bounded():
    async with world() as w:
        known = cache.TokenCache(w.clock, w.monotonic, max_tokens=2)
        good = cache.Verified("i", "c", "", NOW + 900, NOW + 960)
        for name in ("a", "b", "a", "c"):
            digest = cache.digest_of(name)
            if known.get(digest) is None:
                known.put(digest, good)
        assert [known.get(cache.digest_of(n)) is not None for n in "abc"] == [True, False, True]
        w.monotonic.now += cache.MAX_AGE_S
        assert known.get(cache.digest_of("a")) is None
