"""Key sets: rotation, and issuers that are down, slow, huge or wrong. All over real HTTP."""

import asyncio
import inspect
import json

import pytest

from services.apimgmt.jwt import keyset
from services.apimgmt.jwt.claims import Verified
from services.apimgmt.jwt.fetch import Fetcher, FetchError
from services.apimgmt.jwt.keyset import DISCOVERY, MAX_AGE_S, MIN_INTERVAL_S, RETAIN_S
from services.apimgmt.jwt.settings import Issuer as IssuerSettings
from tests.support.token_issuer import Issuer, SigningKey, token_issuer
from tests.unit.apimgmt.credentials.test_jwt import Bench
from tests.unit.apimgmt.credentials.world import until

FIRST, SECOND = SigningKey("first"), SigningKey("second")


@pytest.fixture
async def issuer():
    async with token_issuer() as running:
        running.publish(FIRST)
        yield running


@pytest.fixture
async def fetcher():
    async with Fetcher(timeout_s=0.5, max_bytes=64 * 1024) as made:
        yield made


@pytest.fixture
def bench(issuer: Issuer, fetcher: Fetcher) -> Bench:
    return Bench(issuer, fetcher)


async def good(bench: Bench, key: SigningKey) -> bool:
    return isinstance(await bench.verify(key.sign(bench.claims())), Verified)


async def test_a_new_key_is_found_when_the_first_token_signed_with_it_comes(bench):
    assert await good(bench, FIRST)
    bench.issuer.publish(FIRST, SECOND)
    bench.monotonic.now += MIN_INTERVAL_S
    assert await good(bench, SECOND)
    assert len(bench.issuer.asked) == 2


async def test_a_flood_of_unknown_key_ids_fetches_once_per_interval(bench):
    assert await good(bench, FIRST)
    for _ in range(3):
        bench.monotonic.now += MIN_INTERVAL_S
        tokens = [SECOND.sign(bench.claims(), kid=f"made-up-{i}") for i in range(20)]
        found = await asyncio.gather(*(bench.verify(token) for token in tokens))
        assert {f.reason for f in found} == {"unknown_signing_key"}
        await bench.verify(tokens[0])
    assert len(bench.issuer.asked) == 4
    assert await good(bench, FIRST)


async def test_a_key_that_left_the_set_is_good_for_a_stated_time(bench):
    assert await good(bench, FIRST)
    bench.issuer.publish(SECOND)
    bench.monotonic.now += MIN_INTERVAL_S
    assert await good(bench, SECOND)
    bench.monotonic.now += RETAIN_S - 0.1
    assert await good(bench, FIRST)
    assert await bench.reason(FIRST.sign(bench.claims(), kid="makes it fetch")) == "unknown_signing_key"
    assert len(bench.issuer.asked) == 3
    bench.monotonic.now += 0.1
    assert await bench.reason(FIRST.sign(bench.claims())) == "unknown_signing_key"


async def test_keys_are_refreshed_beside_requests(bench, monkeypatch):
    monkeypatch.setattr(keyset, "REFRESH_S", 0.01)
    bench.verifier.start()
    await until(lambda: len(bench.issuer.asked) > 2)
    assert not inspect.isawaitable(bench.verifier.verify(FIRST.sign(bench.claims())))
    await bench.verifier.stop()


class TestTrouble:
    async def test_nothing_listens(self, fetcher):
        async with token_issuer() as gone:
            bench = Bench(gone, fetcher)
        found = await bench.verify(FIRST.sign(bench.claims()))
        assert (found.status, found.code, found.headers["retry-after"]) == (503, "issuer_unavailable", "1")

    @pytest.mark.parametrize(
        "reply",
        [
            (500, b"{}"),
            (404, b"{}"),
            (302, b""),
            (200, b""),
            (200, b"<html>"),
            (200, b"[]"),
            (200, b'{"keys": {}}'),
            (200, json.dumps({"keys": [FIRST.jwk()], "x": "x" * 100_000}).encode()),
        ],
        ids=["500", "404", "redirect", "empty", "html", "list", "no list", "huge"],
    )
    async def test_the_answer_is_no_key_set(self, bench, reply):
        bench.issuer.answers["/keys"] = reply
        assert (await bench.verify(FIRST.sign(bench.claims()))).status == 503
        assert bench.issuer.asked == ["GET /keys"]

    async def test_the_issuer_is_slow(self, bench):
        bench.issuer.gate = asyncio.Event()
        assert (await bench.verify(FIRST.sign(bench.claims()))).status == 503

    async def test_while_it_is_down_what_is_known_goes_on_working(self, bench):
        assert await good(bench, FIRST)
        bench.issuer.answers["/keys"] = (500, b"{}")
        bench.monotonic.now += MIN_INTERVAL_S
        assert (await bench.verify(SECOND.sign(bench.claims()))).status == 503
        assert await good(bench, FIRST)
        bench.monotonic.now += MAX_AGE_S
        assert (await bench.verify(FIRST.sign(bench.claims()))).status == 503

    async def test_it_comes_back(self, bench):
        kept = bench.issuer.answers.pop("/keys")
        assert (await bench.verify(FIRST.sign(bench.claims()))).status == 503
        bench.issuer.answers["/keys"] = kept
        bench.monotonic.now += MIN_INTERVAL_S
        assert await good(bench, FIRST)

    async def test_a_caller_that_goes_away_does_not_end_the_fetch_of_others(self, bench):
        bench.issuer.gate = asyncio.Event()
        first, second = (asyncio.ensure_future(bench.verify(FIRST.sign(bench.claims()))) for _ in range(2))
        await until(lambda: bench.issuer.asked)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        bench.issuer.gate.set()
        assert isinstance(await second, Verified)
        assert len(bench.issuer.asked) == 1


class TestDiscovery:
    @pytest.fixture
    def bench(self, issuer, fetcher):
        return Bench(issuer, fetcher, jwksUri=None)

    def publish(self, bench, **document):
        found = {"issuer": bench.issuer.url, "jwks_uri": bench.issuer.url + "/keys", **document}
        bench.issuer.answers[DISCOVERY] = (200, json.dumps(found).encode())

    async def test_the_issuer_says_where_its_keys_are(self, bench):
        self.publish(bench)
        assert await good(bench, FIRST)
        assert bench.issuer.asked == [f"GET {DISCOVERY}", "GET /keys"]

    @pytest.mark.parametrize(
        "document",
        [
            {"issuer": "https://evil.example"},
            {"jwks_uri": None},
            {"jwks_uri": "http://keys.example/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": "https://"},
            {"jwks_uri": "http://[::"},
        ],
    )
    async def test_a_document_that_cannot_be_trusted_is_not(self, bench, document):
        self.publish(bench, **document)
        assert (await bench.verify(FIRST.sign(bench.claims()))).status == 503
        assert bench.issuer.asked == [f"GET {DISCOVERY}"]


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com",
        "ftp://id.example.com",
        "id.example.com",
        "https://",
        "http://10.0.0.1/keys",
        "http://localhost.evil.example",
    ],
)
def test_addresses_are_https_or_of_this_machine(url):
    with pytest.raises(ValueError, match="https"):
        IssuerSettings.model_validate({"issuer": url, "audiences": ["a"]})


async def test_no_other_address_is_ever_fetched(fetcher):
    with pytest.raises(FetchError, match="neither HTTPS nor this machine"):
        await fetcher.json("http://192.0.2.1/keys")
