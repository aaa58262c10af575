"""The try-it page: what goes to the gateway, what comes back, and that the key stays nowhere."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from services.apimgmt.portal.page import state_of
from services.apimgmt.portal.try_it import MAX_TRIES
from tests.unit.apimgmt.portal.conftest import Site
from tests.unit.apimgmt.portal.world import Browser, serve

PATH = "/portal/try"
FETCH = {"x-requested-with": "fetch"}
FIELDS = {"key": "psk_right", "model": "llama-3-8b", "prompt": "Say hello", "max_tokens": "16"}


async def _fetch(browser: Browser, **fields: str) -> httpx.Response:
    data = {"token": await browser.token(PATH), **FIELDS, **fields}
    return await browser.client.post(PATH, data=data, headers=FETCH)


async def test_an_answer_is_streamed_through_the_portal(site: Site) -> None:
    answer = await _fetch(await site.visit(), stream="on")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.endswith("data: [DONE]\n\n")
    seen = site.world.seen[0]
    assert seen["headers"]["authorization"] == "Bearer psk_right"
    assert "cookie" not in seen["headers"]
    assert seen["body"] == {
        "model": "llama-3-8b",
        "messages": [{"role": "user", "content": "Say hello"}],
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert state_of(site.world.context).tries == 0


async def test_without_script_the_answer_is_a_page_that_does_not_hold_the_key(site: Site) -> None:
    answer = await (await site.visit()).post(PATH, PATH, **FIELDS)
    assert answer.status_code == 200
    assert "Hello from the model" in answer.text
    assert '<dd id="completion-tokens">4</dd>' in answer.text
    assert "Say hello" in answer.text
    assert "psk_right" not in answer.text
    assert "stream" not in site.world.seen[0]["body"]


async def test_errors_of_the_gateway_are_shown_as_they_are(site: Site) -> None:
    browser = await site.visit()
    answer = await _fetch(browser, key="psk_wrong", stream="on")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    page = await browser.post(PATH, PATH, **{**FIELDS, "key": "psk_wrong"})
    assert "Failed with status 401" in page.text
    assert "The API key is not valid." in page.text


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("key", "", "invalid_key"),
        ("key", "psk_a\r\nx-evil: 1", "invalid_key"),
        ("key", "psk_ä", "invalid_key"),
        ("key", "x" * 513, "invalid_key"),
        ("key", "psp_aaaaaaaaaaaaaaaa_x", "invalid_key"),
        ("prompt", "  ", "invalid_prompt"),
        ("prompt", "x" * 100_001, "invalid_prompt"),
        ("max_tokens", "0", "invalid_max_tokens"),
        ("max_tokens", "-1", "invalid_max_tokens"),
        ("max_tokens", "9" * 500, "invalid_max_tokens"),
        ("max_tokens", "²", "invalid_max_tokens"),
    ],
)
async def test_what_cannot_be_sent_is_explained_and_not_sent(site: Site, field: str, value: str, code: str) -> None:
    browser = await site.visit()
    answer = await _fetch(browser, **{field: value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    page = await browser.post(PATH, PATH, **{**FIELDS, field: value})
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert site.world.seen == []


async def test_the_key_is_neither_logged_nor_stored(
    site: Site, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = await site.visit()
    await _fetch(browser, key="psk_never-to-be-seen", stream="on")
    await browser.post(PATH, PATH, **{**FIELDS, "key": "psk_never-to-be-seen"})
    assert len(site.world.seen) == 2
    assert not any("never-to-be-seen" in record.getMessage() for record in caplog.records)
    written = b"".join((tmp_path / name).read_bytes() for name in ("store.db", "store.db-wal"))
    assert b"ada@acme" in written
    assert b"never-to-be-seen" not in written


async def test_a_gateway_that_is_away_is_told_in_openais_shape(tmp_path: Path) -> None:
    endpoint = "http://127.0.0.1:9"
    async with serve(tmp_path, portal={"endpoint": endpoint}) as (world, url):
        browser = Browser(url)
        await browser.sign_in(await world.personal("ada@acme"))
        answer = await _fetch(browser)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "gateway_unreachable"
        assert state_of(world.context).tries == 0
        await browser.client.aclose()


async def test_without_an_endpoint_the_page_shows_how_to_call(tmp_path: Path) -> None:
    async with serve(tmp_path) as (world, url):
        browser = Browser(url)
        await browser.sign_in(await world.personal("ada@acme"))
        page = await browser.get(PATH)
        assert "curl https://GATEWAY/v1/chat/completions" in page
        assert 'id="try"' not in page
        answer = await browser.client.post(PATH, data={"token": await browser.token(), **FIELDS}, headers=FETCH)
        assert answer.json()["error"]["code"] == "no_endpoint"
        await browser.client.aclose()


async def test_who_goes_away_ends_the_request_to_the_gateway(site: Site) -> None:
    browser = await site.visit()
    data = {"token": await browser.token(PATH), **FIELDS, "model": "endless", "stream": "on"}
    async with browser.client.stream("POST", PATH, data=data, headers=FETCH) as answer:
        await anext(answer.aiter_bytes())
        assert (site.world.endless, state_of(site.world.context).tries) == (1, 1)
    async with asyncio.timeout(10):
        while site.world.endless or state_of(site.world.context).tries:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_only_so_many_are_under_way(site: Site) -> None:
    browser = await site.visit()
    state_of(site.world.context).tries = MAX_TRIES
    assert (await _fetch(browser)).status_code == 503
    state_of(site.world.context).tries = 0
    assert (await _fetch(browser)).status_code == 200
