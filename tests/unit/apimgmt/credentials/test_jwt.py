"""JWTs: what is accepted, and every way in which one is not. Key sets come from a real HTTP server."""

import base64
import hashlib
import hmac
import inspect

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from services.apimgmt.call import Caller, Credential
from services.apimgmt.jwt.claims import Verified
from services.apimgmt.jwt.fetch import Fetcher
from services.apimgmt.jwt.keyset import MIN_INTERVAL_S
from services.apimgmt.jwt.settings import Issuer as IssuerSettings
from services.apimgmt.jwt.verifier import Verifier
from tests.support.token_issuer import Issuer, SigningKey, encoded, token_issuer
from tests.unit.apimgmt.credentials.world import CLIENT, NOW, Clock, answer, call, error, world

KEY, OTHER, EC = SigningKey("first"), SigningKey("second"), SigningKey("curve", "ES256")
AUDIENCE = "https://ai.example.internal"


class Bench:
    """A verifier of one issuer."""

    def __init__(self, issuer: Issuer, fetcher: Fetcher, **more) -> None:
        self.clock, self.monotonic = Clock(), Clock(1000.0)
        values = {"issuer": issuer.url, "audiences": [AUDIENCE], "jwksUri": issuer.url + "/keys", **more}
        self.settings = IssuerSettings.model_validate(values)
        self.verifier = Verifier([self.settings], fetcher, self.clock, self.monotonic)
        self.issuer = issuer

    def claims(self, **more):
        found = {"iss": self.issuer.url, "aud": AUDIENCE, "azp": CLIENT, "exp": NOW + 600, "iat": NOW, **more}
        return {name: value for name, value in found.items() if value is not None}

    async def verify(self, token: str):
        found = self.verifier.verify(token)
        return await found if inspect.isawaitable(found) else found

    async def reason(self, token: str) -> str:
        found = await self.verify(token)
        assert not isinstance(found, Verified)
        assert found.status in (401, 403)
        return found.reason or found.code


@pytest.fixture
async def issuer():
    async with token_issuer() as running:
        running.publish(KEY, EC)
        yield running


@pytest.fixture
async def fetcher():
    async with Fetcher() as made:
        yield made


@pytest.fixture
def bench(issuer, fetcher):
    return Bench(issuer, fetcher)


@pytest.mark.parametrize("key", [KEY, EC], ids=["RS256", "ES256"])
async def test_a_good_token_is_accepted_and_the_keys_are_fetched_once(bench, key):
    token = key.sign(bench.claims(sub="somebody"))
    assert inspect.isawaitable(first := bench.verifier.verify(token))
    assert await first == Verified(bench.issuer.url, CLIENT, "", NOW + 600, NOW + 660)
    assert bench.verifier.verify(token) == Verified(bench.issuer.url, CLIENT, "", NOW + 600, NOW + 660)
    assert bench.issuer.asked == ["GET /keys"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"exp": NOW - 60}, "token_expired"),
        ({"exp": None}, "token_without_expiry"),
        ({"exp": "tomorrow"}, "malformed_token"),
        ({"exp": True}, "malformed_token"),
        ({"exp": [NOW + 600]}, "malformed_token"),
        ({"nbf": NOW + 61}, "token_not_yet_valid"),
        ({"iat": NOW + 61}, "token_not_yet_valid"),
        ({"nbf": {}}, "malformed_token"),
        ({"aud": "https://other.example"}, "wrong_audience"),
        ({"aud": None}, "wrong_audience"),
        ({"aud": [1, None]}, "wrong_audience"),
        ({"aud": {AUDIENCE: 1}}, "wrong_audience"),
        ({"aud": AUDIENCE[:-1]}, "wrong_audience"),
        ({"iss": "https://evil.example"}, "unknown_issuer"),
        ({"iss": None}, "unknown_issuer"),
        ({"iss": ["x"]}, "unknown_issuer"),
        ({"azp": None}, "token_without_client"),
        ({"azp": 7}, "token_without_client"),
        ({"azp": ""}, "token_without_client"),
        ({"azp": "x" * 513}, "token_without_client"),
    ],
    ids=str,
)
async def test_claims_that_do_not_fit_are_refused(bench, more, reason):
    claims = {name: value for name, value in {**bench.claims(), **more}.items() if value is not None}
    token = jwt_of(claims)
    assert await bench.reason(token) == reason


def jwt_of(claims, key=KEY, **header) -> str:
    """Sign claims of any types, which the library would refuse to sign."""
    signed = f"{encoded({'alg': key.algorithm, 'kid': key.id, **header})}.{encoded(claims)}"
    return f"{signed}.{encoded(key.private.sign(signed.encode(), PKCS1v15(), SHA256()))}"


@pytest.mark.parametrize(
    ("at", "good"), [(NOW + 659.9, True), (NOW + 660, False), (NOW - 60, True), (NOW - 60.1, False)]
)
async def test_clocks_may_be_apart_by_the_skew(bench, at, good):
    token = KEY.sign(bench.claims(nbf=NOW))
    bench.clock.now = at
    assert isinstance(await bench.verify(token), Verified) is good


async def test_client_id_names_the_client_where_there_is_no_azp_and_settings_go_first(issuer, fetcher):
    bench = Bench(issuer, fetcher)
    assert (await bench.verify(KEY.sign(bench.claims(azp=None, client_id="other")))).client == "other"
    bench = Bench(issuer, fetcher, clientClaim="appid", userClaim="email")
    token = KEY.sign(bench.claims(appid="mine", email="eve@example.org"))
    assert (await bench.verify(token)).client == "mine"
    assert (await bench.verify(token)).user == "eve@example.org"


@pytest.mark.parametrize(
    "more",
    [{}, {"email": "eve|org"}, {"email": 7}, {"email": "eve\r\nx: y"}, {"email": "e@x.org", "email_verified": False}],
)
async def test_a_user_that_cannot_be_one_is_refused(issuer, fetcher, more):
    bench = Bench(issuer, fetcher, userClaim="email")
    assert await bench.reason(KEY.sign(bench.claims(**more))) == "token_without_user"


@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({"scope": "ai.use other"}, True),
        ({"scp": "ai.use other"}, True),
        ({"scp": ["ai.use", "other"]}, True),
        ({"scope": "ai.use"}, False),
        ({"scope": "ai.useother"}, False),
        ({"scope": {"ai.use": 1}}, False),
        ({}, False),
    ],
)
async def test_required_scopes_have_to_be_there(issuer, fetcher, more, good):
    bench = Bench(issuer, fetcher, requiredScopes=["ai.use", "other"])
    found = await bench.verify(KEY.sign(bench.claims(**more)))
    assert isinstance(found, Verified) is good
    if not good:
        assert (found.status, found.code) == (403, "insufficient_scope")
        assert 'scope="ai.use other"' in found.headers["www-authenticate"]


class TestAlgorithms:
    async def test_none_is_never_accepted(self, bench):
        for alg in ("none", "None", "NONE", "", None, 7):
            token = f"{encoded({'alg': alg, 'kid': 'first'})}.{encoded(bench.claims())}."
            assert await bench.reason(token) == "algorithm_not_allowed"
        assert bench.issuer.asked == []

    async def test_a_public_key_is_no_shared_secret(self, bench):
        signed = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(bench.claims())}"
        for secret in (KEY.pem(), KEY.pem().strip(), bench.issuer.answers["/keys"][1]):
            token = f"{signed}.{encoded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
            assert await bench.reason(token) == "algorithm_not_allowed"

    async def test_what_the_settings_do_not_list_is_refused_before_any_key_is_asked_for(self, issuer, fetcher):
        bench = Bench(issuer, fetcher, algorithms=["ES256"])
        assert await bench.reason(KEY.sign(bench.claims())) == "algorithm_not_allowed"
        assert issuer.asked == []

    @pytest.mark.parametrize("name", ["none", "HS256", "HS512", "RS1", "ES256K"])
    def test_the_settings_cannot_list_it(self, name):
        with pytest.raises(ValueError, match="algorithms"):
            IssuerSettings.model_validate({"issuer": "https://x.example", "audiences": ["a"], "algorithms": [name]})

    async def test_a_key_serves_its_own_algorithm_only(self, issuer, fetcher):
        bench = Bench(issuer, fetcher, algorithms=["RS256", "RS512", "ES256"])
        issuer.publish(KEY.jwk(alg="RS256"))
        strong = SigningKey("first", "RS512")
        strong.private = KEY.private
        assert isinstance(await bench.verify(KEY.sign(bench.claims())), Verified)
        assert await bench.reason(strong.sign(bench.claims())) == "unknown_signing_key"
        confused = SigningKey("first", "ES256")
        assert await bench.reason(confused.sign(bench.claims())) == "unknown_signing_key"

    async def test_keys_that_may_not_sign_are_not_used(self, bench):
        short = SigningKey("short", bits=1024)
        secret = {"kty": "oct", "kid": "oct", "k": encoded(b"x" * 32), "alg": "RS256"}
        bad = [{**KEY.jwk(), "use": "enc"}, {**KEY.jwk(), "key_ops": ["encrypt"]}, {**KEY.jwk(), "n": 7}, {"kid": "x"}]
        bench.issuer.publish(*bad, short.jwk(), secret, "nothing", [], {**KEY.jwk(), "kid": 7})
        assert await bench.reason(KEY.sign(bench.claims())) == "unknown_signing_key"
        assert await bench.reason(jwt_of(bench.claims(), short)) == "unknown_signing_key"


class TestSignatures:
    async def test_a_foreign_key_under_a_known_id_is_refused(self, bench):
        assert await bench.reason(OTHER.sign(bench.claims(), kid="first")) == "invalid_signature"

    async def test_keys_that_the_token_brings_are_not_looked_at(self, bench):
        for header in ({"jwk": OTHER.jwk()}, {"jku": bench.issuer.url + "/evil"}, {"x5u": "https://evil.example"}):
            assert await bench.reason(OTHER.sign(bench.claims(), kid="first", **header)) == "invalid_signature"
        assert bench.issuer.asked == ["GET /keys"]

    async def test_changed_claims_are_refused(self, bench):
        header, _, signature = KEY.sign(bench.claims()).split(".")
        assert await bench.reason(f"{header}.{encoded(bench.claims(azp='admin'))}.{signature}") == "invalid_signature"

    async def test_a_signature_that_is_cut_off_is_refused(self, bench):
        token = KEY.sign(bench.claims())
        for cut in (1, 10, len(token.rpartition(".")[2])):
            assert await bench.reason(token[:-cut]) in ("invalid_signature", "malformed_token")

    @pytest.mark.parametrize(
        "header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"kid": 7}, {"kid": ["first"]}]
    )
    async def test_headers_that_are_not_understood_are_refused(self, bench, header):
        assert await bench.reason(jwt_of(bench.claims(), **header)) == "malformed_token"

    async def test_a_token_without_key_id_needs_a_single_key_that_fits(self, bench):
        anonymous = SigningKey(None)
        bench.issuer.publish(anonymous, EC)
        assert isinstance(await bench.verify(anonymous.sign(bench.claims())), Verified)
        bench.monotonic.now += 2 * MIN_INTERVAL_S
        bench.issuer.publish(KEY, OTHER)
        token = SigningKey("unknown").sign(bench.claims())
        assert await bench.reason(token) == "unknown_signing_key"
        assert await bench.reason(anonymous.sign(bench.claims())) == "unknown_signing_key"


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "e30.e30.",
        "e30.e30.e30",
        "bnVsbA.bnVsbA.bnVsbA",
        "W10.W10.W10",
        "a.b",
        "a.b.c.d",
        "ä.ö.ü",
        "\udcff.a.b",
    ],
)
async def test_what_is_no_token_is_refused(bench, token):
    assert await bench.reason(token) in ("malformed_token", "unknown_issuer")


async def test_deep_nesting_is_refused(bench):
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    assert await bench.reason(f"{deep}.{deep}.x") == "malformed_token"


async def test_the_policy_finds_the_app_of_a_tokens_client(issuer):
    async with world() as w:
        settings = {"issuer": issuer.url, "audiences": [AUDIENCE], "jwksUri": issuer.url + "/keys"}
        policy = w.credentials(issuers=[settings])
        claims = {"iss": issuer.url, "aud": [AUDIENCE, "x"], "azp": CLIENT, "exp": NOW + 600}
        token = KEY.sign(claims)
        for _ in range(2):
            made = call(("authorization", f"Bearer {token}"))
            assert await answer(policy.check(made)) is None
            assert isinstance(made.caller, Caller)
            assert (made.caller.app, made.caller.credential, made.caller.key) == ("chat", Credential.JWT, "")
            assert made.caller.expires == NOW + 600
            assert "authorization" in made.exchange.request_changes.remove
        w.clock.now = NOW + 660
        found = error(await answer(policy.check(call(("authorization", f"Bearer {token}")))))
        assert (found["status"], found["code"], found["reason"]) == (401, "invalid_token", "token_expired")
        assert found["headers"]["www-authenticate"] == 'Bearer realm="penstock", error="invalid_token"'
        w.clock.now = NOW
        stranger = KEY.sign({**claims, "azp": "stranger"})
        found = error(await answer(policy.check(call(("authorization", f"Bearer {stranger}")))))
        assert (found["status"], found["code"]) == (403, "unknown_client")
        await policy.stop()
