"""The policy `credentials`: how a credential may come, and what never passes."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.apimgmt import keys
from services.apimgmt.policies.credentials import CredentialsSettings
from services.extproc.api import Reply
from tests.support.token_issuer import SigningKey
from tests.unit.apimgmt.credentials.world import NOW, PEPPER, answer, call, error, world

GOOGLE = {
    "audiences": ["https://ai.example.internal"],
    "jwksUri": "http://127.0.0.1:9/",
    "tokenInfoUri": "http://127.0.0.1:9/",
}
ISSUERS = [{"issuer": "https://id.example.com", "audiences": ["a"], "jwksUri": "http://127.0.0.1:9/keys"}]


async def refused(policy, *headers):
    made = call(*headers)
    found = error(await answer(policy.check(made)))
    assert made.caller is None
    assert not any(name.startswith("x-penstock-") for name in made.exchange.request_changes.set)
    return found


@pytest.mark.parametrize(
    "form",
    [
        lambda key: [("authorization", f"Bearer {key}")],
        lambda key: [("authorization", f"bearer {key}")],
        lambda key: [("authorization", f"BEARER   {key} ")],
        lambda key: [("x-api-key", key)],
        lambda key: [("x-api-key", key), ("authorization", f"Bearer {key}")],
        lambda key: [("x-api-key", key), ("authorization", "Bearer ")],
        lambda key: [("x-api-key", ""), ("authorization", f"Bearer {key}")],
    ],
)
async def test_a_key_is_accepted_where_it_belongs(form):
    async with world() as w:
        plain, record = w.issue()
        policy = w.credentials()
        for _ in range(2):
            made = call(*form(plain))
            assert await answer(policy.check(made)) is None
            assert made.caller.key == record.id
            changes = made.exchange.request_changes
            assert {name for name, _ in form(plain)} <= changes.remove
            assert plain not in repr(changes)
            assert changes.set == {
                "x-penstock-organization": "acme",
                "x-penstock-team": "search",
                "x-penstock-user": "ada@example.com",
                "x-penstock-app": "chat",
                "x-penstock-key": record.id,
            }


@pytest.mark.parametrize(
    ("form", "status", "code", "reason"),
    [
        (lambda k, o: [], 401, "missing_credentials", "missing_credentials"),
        (lambda k, o: [("authorization", "")], 401, "missing_credentials", "missing_credentials"),
        (lambda k, o: [("authorization", "Bearer")], 401, "missing_credentials", "missing_credentials"),
        (lambda k, o: [("authorization", f"Basic {k}")], 401, "invalid_api_key", "wrong_scheme"),
        (lambda k, o: [("authorization", k)], 401, "invalid_api_key", "wrong_scheme"),
        (lambda k, o: [("authorization", f"Bearer\t{k}")], 401, "invalid_api_key", "wrong_scheme"),
        (lambda k, o: [("authorization", f"Bearer {k}")] * 2, 401, "invalid_api_key", "ambiguous_credentials"),
        (lambda k, o: [("x-api-key", k), ("x-api-key", o)], 401, "invalid_api_key", "ambiguous_credentials"),
        (lambda k, o: [("authorization", f"Bearer {k},Bearer {k}")], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("authorization", f"Bearer {k} {k}")], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("authorization", f'Bearer "{k}"')], 401, "invalid_api_key", "malformed_key"),
        (
            lambda k, o: [("authorization", f"Bearer {k}"), ("x-api-key", o)],
            400,
            "conflicting_credentials",
            "conflicting_credentials",
        ),
        (lambda k, o: [("cookie", f"api_key={k}; Authorization=Bearer {k}")], 401, "missing_credentials", None),
        (lambda k, o: [("api-key", k)], 401, "missing_credentials", None),
        (lambda k, o: [("x_api_key", k)], 401, "missing_credentials", None),
        (lambda k, o: [("proxy-authorization", f"Bearer {k}")], 401, "missing_credentials", None),
        (lambda k, o: [("x-api-key", k[:-1])], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("x-api-key", k[:-1] + "é")], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("x-api-key", k[:-1] + "\udcff")], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("x-api-key", k.replace("psk_", "sk-"))], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("x-api-key", k.replace("psk_", "psp_"))], 401, "invalid_api_key", "unknown_key"),
        (lambda k, o: [("x-api-key", k + "x" * 60_000)], 401, "invalid_api_key", "credential_too_long"),
        (lambda k, o: [("x-api-key", "a.b.c")], 401, "invalid_api_key", "malformed_key"),
        (lambda k, o: [("x-api-key", "ya29.token")], 401, "invalid_api_key", "malformed_key"),
    ],
)
async def test_bad_credentials_are_refused_and_never_repeated(form, status, code, reason):
    async with world() as w:
        plain, record = w.issue()
        other, _ = w.issue()
        policy = w.credentials()
        await w.find(plain)
        found = await refused(policy, *form(plain, other))
        assert (found["status"], found["code"], found["type"]) == (status, code, "invalid_request_error")
        assert reason in (None, found["reason"])
        assert found["headers"]["www-authenticate"].startswith('Bearer realm="penstock"')
        shown = json.dumps(found, default=str)
        assert plain[21:50] not in shown
        assert other[21:50] not in shown
        assert record.id not in shown


async def test_a_key_in_the_url_is_not_looked_at():
    async with world() as w:
        plain, _ = w.issue()
        made = call(path=f"/v1/chat/completions?api_key={plain}&key={plain}")
        assert error(await answer(w.credentials().check(made)))["code"] == "missing_credentials"
        assert made.operation == "/v1/chat/completions"


async def test_a_rotated_key_works_in_its_grace_period_only():
    async with world() as w:
        plain, record = w.issue()
        fresh, new, old = keys.rotate(PEPPER, record, now=NOW, grace_s=60)
        await keys.save_rotation(w.store, new, old, actor="x", now=NOW)
        policy = w.credentials()
        for at, good in ((NOW, True), (NOW + 59, True), (NOW + 60, False)):
            w.clock.now = at
            reply = await answer(policy.check(call(("x-api-key", plain))))
            assert (reply is None) is good
            assert await answer(policy.check(call(("x-api-key", fresh)))) is None
        assert error(reply)["reason"] == "revoked_key"
        assert record.id in error(reply)["message"]


async def test_a_store_that_is_away_is_503_and_not_401():
    async with world() as w:
        plain, _ = w.issue()
        w.store.away = True
        found = await refused(w.credentials(), ("x-api-key", plain))
        assert (found["status"], found["type"], found["headers"]["retry-after"]) == (503, "server_error", "1")


@pytest.mark.parametrize("forward", [False, True])
async def test_replicas_get_credentials_only_if_told_so(forward):
    async with world() as w:
        plain, _ = w.issue()
        headers = [("authorization", f"Bearer {plain}"), ("x-api-key", plain), ("x_api_key", plain), ("x-other", "y")]
        made = call(*headers)
        assert await answer(w.credentials(forward=forward).check(made)) is None
        hidden = {"authorization", "x-api-key", "x_api_key"}
        assert made.exchange.request_changes.remove == (set() if forward else hidden)


async def test_identity_headers_of_clients_are_removed_in_any_spelling():
    async with world() as w:
        plain, record = w.issue()
        forged = ["x-penstock-user", "x_penstock_user", "x-penstock_key", "x-penstock-anything", "x-penstock-agent"]
        made = call(("x-api-key", plain), *((name, "evil") for name in forged), ("x-mypenstock-", "fine"))
        assert await answer(w.credentials().check(made)) is None
        changes = made.exchange.request_changes
        assert set(forged) <= changes.remove
        assert "x-mypenstock-" not in changes.remove
        assert "evil" not in changes.set.values()
        assert (changes.set["x-penstock-key"], made.agent) == (record.id, "")


@pytest.mark.parametrize(
    ("values", "agent"),
    [
        (["planner"], "planner"),
        (["team/planner:v1.2+x@y"], "team/planner:v1.2+x@y"),
        (["a", "b"], ""),
        (["has space"], ""),
        (["line\nbreak"], ""),
        (["x" * 129], ""),
        (["\udcff"], ""),
        ([""], ""),
    ],
)
async def test_the_agent_of_a_trusted_app_is_believed_if_it_is_one_clean_name(values, agent):
    async with world() as w:
        place = next(p for p in w.store.documents if p[2] == "chat")
        document = w.store.documents[place]
        w.store.documents[place] = type(document)(*place, {**document.body, "trustedAgent": True}, 99)
        await w.store.change([], [])
        await w.directory.refresh()
        plain, _ = w.issue()
        made = call(("x-api-key", plain), *(("x-penstock-agent", value) for value in values))
        assert await answer(w.credentials().check(made)) is None
        assert made.agent == agent
        assert made.exchange.request_changes.set.get("x-penstock-agent", "") == agent
        assert "x-penstock-agent" in made.exchange.request_changes.remove


def test_an_issuer_stands_there_once():
    with pytest.raises(ValueError, match=r"each issuer once \(twice: https://id.example.com\)"):
        CredentialsSettings.model_validate({"issuers": ISSUERS * 2})
    google = [{"issuer": "https://accounts.google.com", "audiences": ["a"]}]
    with pytest.raises(ValueError, match=r"accounts\.google\.com"):
        CredentialsSettings.model_validate({"issuers": google, "google": {"audiences": ["a"]}})


def test_of_several_issuers_each_says_whose_clients_it_may_name() -> None:
    with pytest.raises(ValueError, match=r"of several issuers each needs `organizations`"):
        CredentialsSettings.model_validate({"issuers": ISSUERS, "google": GOOGLE})
    assert CredentialsSettings.model_validate({"issuers": ISSUERS}).issuers


REAL = SigningKey("k").sign({"iss": "https://id.example.com", "aud": "a", "azp": "client-of-chat", "exp": NOW + 60})
PIECES = st.one_of(
    st.text(max_size=80),
    st.binary(max_size=80).map(lambda b: b.decode("utf-8", "surrogateescape")),
    st.sampled_from(
        ["Bearer ", "bearer", "psk_", "psp_", "ya29.", ".", "..", "a" * 16, "_", "A" * 43, "e30", ",", " "]
    ),
    st.sampled_from(REAL.split(".")),
)
VALUES = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(["authorization", "x-api-key", "X-Api-Key", "cookie"]), VALUES), max_size=3))
def test_nothing_made_up_passes_or_breaks_anything(headers):
    reply = _runner(headers)
    found = error(reply)
    assert found["status"] in (400, 401, 503)
    assert len(reply.body) < 2000


def _runner(headers) -> Reply:
    async def run() -> Reply | None:
        async with world() as w:
            w.issue()
            own = {"organizations": ["acme"]}
            policy = w.credentials(issuers=[issuer | own for issuer in ISSUERS], google=GOOGLE | own)
            try:
                made = call(*headers)
                reply = await answer(policy.check(made))
                assert made.caller is None
                return reply
            finally:
                await policy.stop()

    return asyncio.run(run())
