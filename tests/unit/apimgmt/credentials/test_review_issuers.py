"""Tokens of issuers that do not serve everybody, and headers that ask for what nobody here understands."""

import pytest

from tests.support.token_issuer import SigningKey, token_issuer
from tests.unit.apimgmt.credentials.test_jwt import AUDIENCE
from tests.unit.apimgmt.credentials.world import CLIENT, NOW, answer, call, error, world

KEY = SigningKey("first")


def asked(issuer, **header):
    claims = {"iss": issuer.url, "aud": AUDIENCE, "azp": CLIENT, "exp": NOW + 600}
    return call(("authorization", f"Bearer {KEY.sign(claims, **header)}"))


@pytest.mark.parametrize(("organizations", "good"), [(None, True), (["acme"], True), (["other"], False)])
async def test_an_issuer_speaks_for_its_organizations_only(organizations, good):
    async with token_issuer() as issuer, world() as w:
        issuer.publish(KEY)
        settings = {"issuer": issuer.url, "audiences": [AUDIENCE], "jwksUri": issuer.url + "/keys"}
        policy = w.credentials(issuers=[{**settings, "organizations": organizations}])
        try:
            for _ in range(2):  # the second time from the cache
                made = asked(issuer)
                reply = await answer(policy.check(made))
                assert (made.caller is not None) is good
                if not good:
                    assert (error(reply)["status"], error(reply)["code"]) == (403, "unknown_client")
        finally:
            await policy.stop()


async def test_a_token_with_critical_extensions_is_refused():
    async with token_issuer() as issuer, world() as w:
        issuer.publish(KEY)
        policy = w.credentials(
            issuers=[{"issuer": issuer.url, "audiences": [AUDIENCE], "jwksUri": issuer.url + "/keys"}]
        )
        try:
            made = asked(issuer, crit=["x-bound"], **{"x-bound": "elsewhere"})
            assert error(await answer(policy.check(made)))["status"] == 401
            assert made.caller is None
        finally:
            await policy.stop()
