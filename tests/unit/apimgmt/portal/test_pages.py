"""What people do in the portal: apps, products, keys, usage, limits; and what they cannot see of others."""

import re

import pytest

from services.apimgmt import keys
from services.apimgmt.domain import App, Kind
from services.apimgmt.portal.page import BASE
from tests.unit.apimgmt.portal.conftest import Site
from tests.unit.apimgmt.portal.world import HOSTILE, NOW, PEPPER, Browser, requests_on, size_on

KEY = re.compile(r"psk_[a-z2-7]{16}_[A-Za-z0-9_-]{43}")
CHAT = [{"product": "chat", "status": "approved"}]


async def _issued(browser: Browser, answer_path: str, **fields: str) -> str:
    """Send a form that makes a key; return the key from the page that shows it."""
    answer = await browser.post(answer_path, f"{BASE}/keys", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BASE}/keys/issued"), answer.text
    assert not KEY.search(str(answer.headers)), "the key travels sealed"
    page = await browser.get(f"{BASE}/keys/issued")
    found = KEY.findall(page)
    assert found
    return str(found[0])


async def _app(site: Site, name: str) -> App:
    document = await site.world.context.store.get(Kind.APP, "acme", name)
    assert document is not None
    return App.model_validate(dict(document.body))


async def test_from_the_first_app_to_the_first_key(site: Site) -> None:
    browser = await site.visit("new@acme")
    page = await browser.get(f"{BASE}/")
    assert "Get started" in page
    answer = await browser.post(f"{BASE}/apps", name="first-app", display_name="First app")
    assert answer.headers["location"] == f"{BASE}/apps/first-app"
    assert "The app is there" in await browser.get(f"{BASE}/apps/first-app")
    assert "The app is there" not in await browser.get(f"{BASE}/apps/first-app")
    await browser.post(f"{BASE}/products/chat/subscribe", app="first-app")
    assert "first-app may use chat now" in await browser.get(f"{BASE}/apps/first-app")
    await browser.post(f"{BASE}/products/large/subscribe", app="first-app")
    assert "An administrator has to approve it" in await browser.get(f"{BASE}/products")
    states = {s.product: s.status.value for s in (await _app(site, "first-app")).products}
    assert states == {"chat": "approved", "large": "pending"}
    key = await _issued(browser, f"{BASE}/keys", app="first-app", display_name="laptop", days="30")
    parsed = keys.parse(key)
    assert parsed is not None
    record = await site.world.context.store.key(parsed.id)
    assert record is not None
    assert keys.matches(PEPPER, key, record.digest)
    assert (record.app, record.display_name, record.expires) == ("first-app", "laptop", NOW + 30 * 86_400)
    trail = await site.world.context.store.audit("acme", 0, 10)
    assert {(e.actor, e.action, e.kind) for e in trail} >= {
        ("developer:acme/new@acme", "create", "apps"),
        ("developer:acme/new@acme", "issue", "keys"),
    }


async def test_a_key_is_shown_once(site: Site) -> None:
    bot, _ = await site.furnish()
    browser = await site.visit()
    key = await _issued(browser, f"{BASE}/keys", app=bot.name, display_name="", days="")
    answer = await browser.client.get(f"{BASE}/keys/issued")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BASE}/keys")
    for path in ("keys", f"apps/{bot.name}", ""):
        assert key not in await browser.get(f"{BASE}/{path}")


async def test_a_rotated_key_works_on_for_its_grace_and_a_revoked_one_not(site: Site) -> None:
    _, made = await site.furnish()
    store, browser = site.world.context.store, await site.visit()
    old = made[0][1].id
    assert "Grace period" in await browser.get(f"{BASE}/keys/{old}/rotate")
    new = await _issued(browser, f"{BASE}/keys/{old}/rotate", grace="3600")
    record = await store.key(old)
    assert record is not None
    assert (record.revoked, record.replaced_by) == (NOW + 3600, new[4:20])
    assert "cannot be rotated" in await browser.get(f"{BASE}/keys/{old}/rotate")
    assert (await browser.post(f"{BASE}/keys/{old}/rotate", grace="3600")).status_code == 409
    assert (await browser.post(f"{BASE}/keys/{new[4:20]}/rotate", grace="5")).status_code == 422
    assert "cannot be undone" in await browser.get(f"{BASE}/keys/{old}/revoke")
    record = await store.key(old)
    assert record is not None
    assert record.revoked == NOW + 3600, "asking changes nothing"
    assert (await browser.post(f"{BASE}/keys/{old}/revoke")).status_code == 303
    assert "production is revoked" in await browser.get(f"{BASE}/keys")
    record = await store.key(old)
    assert record is not None
    assert record.revoked == NOW


async def test_revoking_the_own_personal_key_signs_out(site: Site) -> None:
    browser = await site.visit()
    page = await browser.get(f"{BASE}/keys")
    own = re.findall(r"/keys/([a-z2-7]{16})/revoke", page)[0]
    assert "signs you out" in await browser.get(f"{BASE}/keys/{own}/revoke")
    await browser.post(f"{BASE}/keys/{own}/revoke")
    await browser.get(f"{BASE}/keys", 303)


async def test_a_personal_key_is_made_for_oneself(site: Site) -> None:
    browser = await site.visit()
    answer = await browser.post(f"{BASE}/keys", purpose="personal", display_name="second", days="30")
    assert answer.status_code == 303
    plain = re.findall(r"psp_[a-z2-7]{16}_[A-Za-z0-9_-]{43}", await browser.get(f"{BASE}/keys/issued"))[0]
    assert (await site.browser().sign_in(plain)).status_code == 303


@pytest.mark.parametrize(
    ("path", "fields", "status", "text"),
    [
        ("apps", {"name": "Not A Name"}, 422, "DNS label"),
        ("apps", {"name": ""}, 422, "DNS label"),
        ("apps", {"name": "support-bot"}, 409, "already"),
        ("keys", {"app": "support-bot", "days": "7"}, 422, "offered lifetimes"),
        ("keys", {"app": "", "days": "30"}, 422, "Choose the app"),
        ("keys", {"app": "support-bot", "days": "30", "display_name": "x" * 201}, 422, "displayName"),
        ("keys", {"app": "nothing", "days": "30"}, 404, "not yours"),
        ("products/secret/subscribe", {"app": "support-bot"}, 404, "not yours"),
        ("products/nothing/subscribe", {"app": "support-bot"}, 404, "not yours"),
    ],
)
async def test_bad_input_is_explained_on_the_page(
    site: Site, path: str, fields: dict[str, str], status: int, text: str
) -> None:
    await site.furnish()
    answer = await (await site.visit()).post(f"{BASE}/{path}", **fields)
    assert answer.status_code == status
    assert text in answer.text
    assert 'role="alert"' in answer.text
    assert "<form" in answer.text, "the form is there to correct it"


OTHERS = ["apps/bobs-app", "limits?app=bobs-app", "keys/{key}/rotate", "keys/{key}/revoke"]


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize("who", ["ada@acme", "lead@acme", "eve@other"])
async def test_what_belongs_to_others_is_not_there(site: Site, path: str, who: str) -> None:
    app = await site.world.app("bobs-app", "bob@acme", products=CHAT)
    _, record = await site.world.key(app, "bobs-key")
    browser = await site.visit(who)
    await browser.get(f"{BASE}/{path.format(key=record.id)}", 404)
    owner = await site.visit("bob@acme")
    assert "bobs-" in await owner.get(f"{BASE}/{path.format(key=record.id)}")


@pytest.mark.parametrize("action", ["rotate", "revoke"])
async def test_keys_of_others_cannot_be_changed(site: Site, action: str) -> None:
    app = await site.world.app("bobs-app", "bob@acme")
    _, record = await site.world.key(app)
    personal = keys.parse(await site.world.personal("bob@acme"))
    assert personal is not None
    for who in ("ada@acme", "lead@acme", "eve@other"):
        browser = await site.visit(who)
        for key in (record.id, personal.id, "aaaaaaaaaaaaaaaa", "x"):
            assert (await browser.post(f"{BASE}/keys/{key}/{action}", grace="0")).status_code == 404
        assert (await browser.post(f"{BASE}/keys", app="bobs-app", days="30")).status_code == 404
        assert (await browser.post(f"{BASE}/products/chat/subscribe", app="bobs-app")).status_code == 404
    assert await site.world.context.store.key(record.id) == record


async def test_own_lists_and_numbers_hold_nothing_of_others(site: Site) -> None:
    await site.furnish()
    browser = await site.visit("bob@acme")
    for path in ("", "apps", "keys", "usage", "usage?scope=team", "usage?scope=organization&by=user", "limits", "try"):
        page = await browser.get(f"{BASE}/{path}")
        for theirs in ("support-bot", "doc-search", "ada@acme", "production", "hidden-model", "llama-3-8b"):
            assert theirs not in page, (path, theirs)
    assert "secret" not in await browser.get(f"{BASE}/products")


async def test_team_leads_see_the_team_and_administrators_the_organization(site: Site) -> None:
    _, made = await site.furnish()
    bobs = await site.world.app("bobs-app", "bob@acme", products=CHAT)
    _, key = await site.world.key(bobs)
    await site.world.use(bobs, key.id, 0)
    lead, root = await site.visit("lead@acme"), await site.visit("root@acme")
    page = await lead.get(f"{BASE}/usage?scope=team&by=user")
    assert "ada@acme" in page
    assert "bob@acme" not in page
    assert "bob@acme" not in await lead.get(f"{BASE}/usage?scope=organization&by=user")
    assert "bob@acme" in await root.get(f"{BASE}/usage?scope=organization&by=user")
    assert "Support bot" in await lead.get(f"{BASE}/apps")
    assert "bobs-app" not in await lead.get(f"{BASE}/apps")
    assert (await lead.post(f"{BASE}/keys/{made[1][1].id}/revoke")).status_code == 303
    record = await site.world.context.store.key(made[1][1].id)
    assert record is not None
    assert record.revoked == NOW


async def test_usage_is_summed_and_every_chart_has_its_table(site: Site) -> None:
    await site.furnish()
    browser = await site.visit()
    page = await browser.get(f"{BASE}/usage?range=7d&by=key")
    assert page.count('<svg class="columns" role="img" aria-label="') == 3
    assert page.count(" as a table</summary>") == 3
    rows = re.findall(r'<th scope="row">(\d+ Sep)</th><td class="num">([\d,]+)</td>', page)
    assert len(rows) >= 7
    assert {"production", "batch"} <= set(re.findall(r'<th scope="row">(\w+)<svg', page))
    prompts = sum(size_on(day) * requests_on(day) for day in range(7))
    assert f"{prompts:,}" in page, "prompt tokens of the key of support-bot"
    hours = await browser.get(f"{BASE}/usage?range=24h")
    assert hours.count("<g><title>") == 3 * 24
    for query in ("range=nonsense&by=nonsense&scope=nonsense", "range=90d&by=outcome", "range=month&by=app"):
        assert "<h1>Usage</h1>" in await browser.get(f"{BASE}/usage?{query}")


async def test_limits_show_use_and_when_they_begin_anew(site: Site) -> None:
    await site.furnish()
    page = re.sub(r"\s+", " ", await (await site.visit()).get(f"{BASE}/limits?app=support-bot"))
    assert "1.72M of 2M tokens per day" in page
    assert "Begins anew in 9 hours 46 minutes" in page
    assert "$250.00 of $250.00 per month" in page
    assert '<rect class="tone-full" width="100.0%"' in page
    assert "12 of 60 requests per minute" in page
    assert "Key production" in page
    assert "141K of 500K tokens in any hour" in page
    assert "Rolls: use counts for one hour" in page
    assert "0 of 4 requests at the same time" in page


async def test_limits_tell_why_an_app_is_refused(site: Site) -> None:
    await site.world.app("off", products=CHAT, active=False)
    page = await (await site.visit()).get(f"{BASE}/limits?app=off")
    assert re.search(r'class="alert warn">[^<]*(not active|inactive)', page)


async def test_names_from_outside_are_text_everywhere(site: Site) -> None:
    hostile = [{"product": "hostile", "status": "approved"}]
    app = await site.world.app("hostile-app", displayName=HOSTILE, products=hostile)
    _, record = await site.world.key(app, HOSTILE)
    await site.world.use(app, record.id, 0, model=HOSTILE, agent=HOSTILE)
    browser = await site.visit()
    for path in ("", "products", "apps", "apps/hostile-app", "keys", "usage?by=model", "usage?by=key", "limits", "try"):
        page = await browser.get(f"{BASE}/{path}")
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    for path in (
        f"keys/{record.id}/rotate",
        f"keys/{record.id}/revoke",
        "keys?app=" + HOSTILE,
        "limits?app=hostile-app",
    ):
        assert "<script>alert" not in await browser.get(f"{BASE}/{path}")
    answer = await browser.post(f"{BASE}/apps", name=HOSTILE, display_name=HOSTILE)
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text


async def test_pages_that_are_not_there_say_so(site: Site) -> None:
    browser = await site.visit()
    for path in ("nothing", "apps/none", "keys/none/revoke", "a/b/c"):
        assert "no such page" in await browser.get(f"{BASE}/{path}", 404)
