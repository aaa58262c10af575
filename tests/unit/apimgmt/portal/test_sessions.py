"""Sessions, form tokens, cookies, headers: who gets in, and until when."""

import re

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt import keys
from services.apimgmt.admin.app import create_app
from services.apimgmt.domain import Kind
from services.apimgmt.portal import sessions
from services.apimgmt.portal.app import router
from services.apimgmt.portal.page import local
from services.apimgmt.portal.sessions import SESSION_S, Seals, Session
from services.apimgmt.portal.throttle import MAX_ADDRESSES, MAX_FAILURES, WINDOW_S, Throttle
from services.apimgmt.store.api import Change
from tests.unit.apimgmt.portal.conftest import Site
from tests.unit.apimgmt.portal.world import NOW, PEPPER, TOKEN

SEALS = Seals(PEPPER)
SESSION = Session("a" * 16, "0" * 32, NOW + SESSION_S)

POSTS = [
    "/portal/sign-out",
    "/portal/apps",
    "/portal/products/chat/subscribe",
    "/portal/keys",
    "/portal/keys/aaaaaaaaaaaaaaaa/rotate",
    "/portal/keys/aaaaaaaaaaaaaaaa/revoke",
    "/portal/try",
]


def _paths(routes: object) -> set[tuple[str, str]]:
    found = set()
    for route in routes:  # type: ignore[attr-defined]
        if hasattr(route, "path") and hasattr(route, "methods"):
            found |= {(method, route.path) for method in route.methods or ()}
        else:
            inner = getattr(route, "original_router", None)
            assert inner is not None, route
            found |= _paths(inner.routes)
    return found


def test_every_form_is_among_those_tested_here() -> None:
    posts = {
        path.replace("{product}", "chat").replace("{key}", "a" * 16) for m, path in _paths(router.routes) if m == "POST"
    }
    assert posts == {*POSTS, "/portal/sign-in"}


def test_sessions_are_read_back_until_they_end() -> None:
    text = SEALS.write(SESSION)
    assert SEALS.read(text, NOW) == SESSION
    assert SEALS.read(text, SESSION.expires) is None
    assert Seals(b"q" * 32).read(text, NOW) is None


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 200), st.characters(codec="utf-8"))
def test_no_changed_character_of_a_session_is_accepted(place: int, char: str) -> None:
    text = SEALS.write(SESSION)
    place %= len(text)
    changed = text[:place] + char + text[place + 1 :]
    assert changed == text or SEALS.read(changed, NOW) is None


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=200))
def test_texts_that_are_no_session_open_nothing(text: str) -> None:
    assert SEALS.read(text, NOW) is None
    assert SEALS.open(SESSION, text, NOW) == {}
    assert not SEALS.accepts(SESSION.id, text)


def test_messages_are_read_by_their_session_within_a_minute() -> None:
    sealed = SEALS.seal(SESSION, {"notice": "done"}, NOW)
    assert SEALS.open(SESSION, sealed, NOW + 59)["notice"] == "done"
    assert SEALS.open(SESSION, sealed, NOW + 60) == {}
    assert SEALS.open(Session("a" * 16, "1" * 32, NOW + 9), sealed, NOW) == {}
    assert "done" not in sealed


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example",
        "/portal//evil",
        "/admin/v1/me",
        "/portal/../x",
        "",
        "javascript:alert(1)",
        "/portal/a\r\nb",
    ],
)
def test_no_one_is_sent_elsewhere_after_the_sign_in(path: str) -> None:
    assert local(path) == "/portal/"


def test_pages_of_the_portal_are_gone_on_to() -> None:
    assert local("/portal/usage?range=7d&by=app") == "/portal/usage?range=7d&by=app"


def test_the_throttle_is_bounded_and_forgets() -> None:
    throttle = Throttle()
    for _ in range(MAX_FAILURES):
        assert throttle.wait("a", NOW) == 0
        throttle.failed("a", NOW)
    assert throttle.wait("a", NOW) == WINDOW_S
    assert throttle.wait("b", NOW) == 0
    assert throttle.wait("a", NOW + WINDOW_S) == 0
    for i in range(MAX_ADDRESSES + 5):
        throttle.failed(f"x{i}", NOW)
    assert throttle.wait("a", NOW) == 0


async def test_sign_in_sets_a_cookie_that_scripts_and_other_sites_get_nothing_of(site: Site) -> None:
    browser = site.browser()
    answer = await browser.client.get("/portal/usage")
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/sign-in?next=/portal/usage")
    page = "/portal/sign-in?next=/portal/usage"
    answer = await browser.post(
        "/portal/sign-in", page, key=await site.world.personal("ada@acme"), next="/portal/usage"
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/usage")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("penstock-session="))
    assert {"HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_S}"} <= set(cookie.split("; "))
    assert "psp_" not in cookie
    assert "ada@acme" in await browser.get("/portal/")


async def test_wrong_keys_do_not_sign_in_and_are_slowed_down(site: Site) -> None:
    _, made = await site.furnish()
    personal = await site.world.personal("ada@acme")
    browser = site.browser()
    wrong = [made[0][0], personal[:-1] + ("A" if personal[-1] != "A" else "B"), "", "psp_", "\x00", "x" * 10_000]
    for key in wrong:
        answer = await browser.sign_in(key)
        assert answer.status_code == 401
        assert key not in answer.text or len(key) < 5
    for _ in range(MAX_FAILURES - len(wrong)):
        await browser.sign_in("nothing")
    answer = await browser.sign_in(personal)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, str(WINDOW_S))
    site.world.now += WINDOW_S
    assert (await browser.sign_in(personal)).status_code == 303


async def test_a_sign_in_form_of_another_browser_is_refused(site: Site) -> None:
    token = await site.browser().token("/portal/sign-in")
    other = site.browser()
    await other.get("/portal/sign-in")
    key = await site.world.personal("ada@acme")
    assert (await other.client.post("/portal/sign-in", data={"token": token, "key": key})).status_code == 403


@pytest.mark.parametrize("path", POSTS)
async def test_forms_without_the_token_are_refused(site: Site, path: str) -> None:
    browser, other = await site.visit(), await site.visit("bob@acme")
    for token in ("", "0" * 64, await other.token()):
        answer = await browser.client.post(path, data={"token": token, "name": "x", "app": "x"})
        assert answer.status_code == 403, token
        assert "form has expired" in answer.text
    headers = {"sec-fetch-site": "cross-site"}
    answer = await browser.client.post(path, data={"token": await browser.token()}, headers=headers)
    assert answer.status_code == 403
    answer = await browser.client.post(path, json={"token": await browser.token()})
    assert answer.status_code == 415
    assert (await site.browser().client.post(path, data={"token": "x"})).status_code == 303


async def test_signing_out_ends_the_session_wherever_its_cookie_is(site: Site) -> None:
    browser = await site.visit()
    stolen = dict(browser.client.cookies)
    answer = await browser.post("/portal/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/sign-in")
    thief = site.browser()
    thief.client.cookies.update(stolen)
    await thief.get("/portal/", 303)
    site.world.now += SESSION_S
    later = await site.visit()
    await later.post("/portal/sign-out")
    _, note = await site.world.context.store.note(sessions.ENDED_NOTE)
    assert note.count(b":") == 1, "sessions that are over anyway have left the note"


async def test_a_session_ends_with_its_key_its_owner_and_its_time(site: Site) -> None:
    world = site.world
    browser, second, third = await site.visit(), await site.visit("bob@acme"), await site.visit("new@acme")
    key = SEALS.read(browser.client.cookies["penstock-session"], NOW)
    assert key is not None
    await keys.save_revocation(world.context.store, key.key, actor="test", now=NOW)
    await browser.get("/portal/", 303)
    bob = await world.context.store.get(Kind.DEVELOPER, "acme", "bob@acme")
    assert bob is not None
    await second.get("/portal/")
    change = Change(Kind.DEVELOPER, "acme", "bob@acme", {**bob.body, "active": False}, bob.declared)
    await world.context.store.change([change], [])
    await second.get("/portal/", 303)
    await third.get("/portal/")
    world.now += SESSION_S
    await third.get("/portal/", 303)


@pytest.mark.parametrize("path", ["/portal/sign-in", "/portal/", "/portal/keys", "/portal/nothing"])
async def test_pages_may_load_nothing_from_elsewhere_and_run_nothing_inline(site: Site, path: str) -> None:
    browser = site.browser() if path.endswith("sign-in") else await site.visit()
    answer = await browser.client.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", answer.text)
    assert all(url.startswith("/portal/") for url in re.findall(r'(?:src|href|action)="([^"#]+)"', answer.text))


async def test_static_files_are_kept_by_version_and_nothing_else_is_there(site: Site) -> None:
    browser = site.browser()
    page = await browser.get("/portal/sign-in")
    for url in re.findall(r"/portal/static/[a-z.]+\?v=[0-9a-f]+", page):
        answer = await browser.client.get(url)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "immutable" not in (await browser.client.get(url.partition("?")[0])).headers["cache-control"]
    for path in ("static/none.css", "static/../page.py", "static/..%2fpage.py", "static/%2e%2e/app.py"):
        assert (await browser.client.get(f"/portal/{path}")).status_code in (303, 404)


async def test_a_portal_that_is_switched_off_is_not_there(site: Site) -> None:
    browser = await site.visit()
    settings = site.world.context.settings
    portal = settings.portal.model_copy(update={"enabled": False})
    site.world.context.settings = settings.model_copy(update={"portal": portal})
    for path in ("/portal/", "/portal/sign-in", "/portal/keys"):
        await browser.get(path, 404)


async def test_the_entrance_leads_to_the_portal(site: Site) -> None:
    for path in ("/", "/portal"):
        answer = await site.browser().client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/portal/")


async def test_tokens_differ_by_session(site: Site) -> None:
    one, other = await site.visit(), await site.visit()
    assert set(TOKEN.findall(await one.get("/portal/"))).isdisjoint(TOKEN.findall(await other.get("/portal/")))


async def test_over_tls_cookies_are_secure_and_bound_to_the_host(site: Site) -> None:
    transport = httpx.ASGITransport(create_app(site.world.context, [router]))
    async with httpx.AsyncClient(transport=transport, base_url="https://portal.example") as client:
        token = TOKEN.findall((await client.get("/portal/sign-in")).text)[0]
        key = await site.world.personal("ada@acme")
        answer = await client.post("/portal/sign-in", data={"token": token, "key": key})
        cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-penstock-session="))
        assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert "max-age=" in answer.headers["strict-transport-security"]
        assert (await client.get("/portal/")).status_code == 200
