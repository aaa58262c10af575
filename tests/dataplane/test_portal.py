"""The developer portal in a real browser: what people click, what the browser refuses, and how it looks.

PENSTOCK_SCREENSHOTS names a folder to leave screenshots of every page in.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt import keys
from tests.support.missing import missing
from tests.unit.apimgmt.portal.world import HOSTILE, World, furnish, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("PENSTOCK_SCREENSHOTS")
PAGES = ["", "products", "apps", "apps/support-bot", "keys", "usage", "limits", "try"]
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""


@dataclass
class Desk:
    """A browser at a portal, and what it complained about."""

    world: World
    browser: Any
    url: str
    complaints: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def page(self, key: str | None = None, *, width: int = 1200, **options: Any) -> AsyncIterator[Any]:
        """Open a window; with a personal key, sign in."""
        options = {"viewport": {"width": width, "height": 800}, "base_url": self.url, **options}
        context = await self.browser.new_context(**options)
        try:
            context.set_default_timeout(15_000)
            await context.grant_permissions(["clipboard-read", "clipboard-write"])
            await context.add_init_script(WATCH)
            page = await context.new_page()
            page.on("console", lambda m: m.type in ("error", "warning") and self.complaints.append(m.text))
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            page.on("requestfailed", lambda r: self.complaints.append(f"{r.url}: {r.failure}"))
            if key is not None:
                await page.goto("/portal/")
                await page.get_by_label("Personal key").fill(key)
                await page.get_by_role("button", name="Sign in").click()
                await page.get_by_role("heading", name="Overview").wait_for()
            yield page
        finally:
            await context.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    if CHROMIUM is None:
        missing("there is no chromium on the PATH, in which the portal is tested")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        missing("the package playwright is not installed, which drives the browser")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with serve(tmp_path, gateway=True) as (world, url), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield Desk(world, browser, url)
        finally:
            await browser.close()


async def _fine(page: Any, desk: Desk) -> None:
    assert await page.evaluate("window.violations") == []
    assert [text for text in desk.complaints if "ERR_ABORTED" not in text] == [], "aborted: left before all was loaded"


async def test_a_key_from_its_making_to_its_end(desk: Desk) -> None:
    await furnish(desk.world)
    async with desk.page(await desk.world.personal("ada@acme")) as page:
        await page.get_by_role("link", name="Keys", exact=True).click()
        new = page.get_by_role("region", name="New key")
        await new.get_by_label("App").select_option("doc-search")
        await new.get_by_label("Label").fill("colab")
        await new.get_by_role("button", name="Create key").click()
        await page.get_by_role("heading", name="Your new key").wait_for()
        first = await page.locator("#new-key").text_content()
        assert keys.parse(first) is not None
        assert first in await page.locator("#curl").text_content()
        assert first in await page.locator("#python").text_content()
        await page.get_by_role("button", name="Copy key").click()
        await page.get_by_role("button", name="Copied").wait_for()
        assert await page.evaluate("navigator.clipboard.readText()") == first
        await _shot(page, "issued")
        await page.reload()
        await page.get_by_role("heading", name="Keys", exact=True).wait_for()
        assert first not in await page.content()
        await page.go_back()
        assert first not in await page.content()

        await page.goto("/portal/keys")
        await page.get_by_role("link", name="Rotate colab").click()
        await page.get_by_label("Grace period of the old key").select_option("3600")
        await page.get_by_role("button", name="Rotate key").click()
        await page.get_by_role("heading", name="Your new key").wait_for()
        assert await page.locator("#new-key").text_content() != first

        await page.goto("/portal/keys")
        assert await page.get_by_text("Grace period").count() == 1
        await page.get_by_role("link", name="Revoke production").click()
        await page.get_by_role("button", name="Revoke key").click()
        await page.get_by_role("status").wait_for()
        assert "production is revoked" in await page.get_by_role("status").text_content()
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("heading", name="Sign in").wait_for()
        await _fine(page, desk)


async def test_from_nothing_to_an_app_with_a_product(desk: Desk) -> None:
    async with desk.page(await desk.world.personal("new@acme")) as page:
        await page.get_by_role("link", name="Create an app").click()
        await page.get_by_label("Name").fill("first-app")
        await page.get_by_role("button", name="Create app").click()
        await page.get_by_role("link", name="Choose a product").click()
        await page.get_by_role("button", name="Ask for Large models").click()
        await page.get_by_text("Waiting for approval").wait_for()
        await page.goto("/portal/products")
        await page.get_by_role("button", name="Subscribe to Chat models").click()
        await page.get_by_text("Approved").wait_for()
        await _fine(page, desk)


async def test_charts_have_bars_and_open_as_tables(desk: Desk) -> None:
    await furnish(desk.world)
    async with desk.page(await desk.world.personal("ada@acme")) as page:
        await page.goto("/portal/usage")
        for name in ("Requests", "Tokens", "Cost"):
            chart = page.get_by_role("img", name=re.compile(f"^{name} per day"))
            box = await chart.bounding_box()
            assert box["width"] > 200
            assert box["height"] > 80
            heights = await chart.locator("rect:not(.hit)").evaluate_all(
                "all => all.map((one) => one.getBoundingClientRect().height)"
            )
            assert max(heights) > 40
        table = page.get_by_role("region", name="Tokens, table")
        assert not await table.is_visible()
        await page.get_by_text("Tokens as a table").click()
        assert await table.get_by_role("row").count() == 31
        await page.get_by_label("Time").select_option("7d")
        await page.get_by_label("Break down by").select_option("app")
        await page.get_by_role("button", name="Show").click()
        await page.get_by_role("heading", name="By app").wait_for()
        await page.goto("/portal/limits?app=support-bot")
        full = await page.locator(".bar .tone-full").first.bounding_box()
        track = await page.locator(".bar .track").first.bounding_box()
        assert full["width"] == pytest.approx(track["width"], abs=1)
        await _fine(page, desk)


async def test_a_model_is_tried_with_a_stream_and_without(desk: Desk) -> None:
    _, made = await furnish(desk.world)
    async with desk.page(await desk.world.personal("ada@acme")) as page:
        await page.goto("/portal/try")
        await page.get_by_label("API key").fill(made[0][0])
        await page.get_by_label("Model").select_option("qwen-32b")
        await page.get_by_label("Prompt", exact=True).fill("Say hello")
        for stream in (True, False):
            await page.get_by_label("Stream the answer").set_checked(stream)
            await page.get_by_role("button", name="Send").click()
            await page.get_by_text("Done").wait_for()
            assert await page.locator("#output").text_content() == "Hello from the model"
            assert await page.locator("#completion-tokens").text_content() == "4"
            assert re.fullmatch(r"\d+\.\d\d s", await page.locator("#latency").text_content())
            shown = await page.locator("#ttft").text_content()
            assert re.fullmatch(r"\d+\.\d\d s" if stream else "–", shown)
        assert [call["body"].get("stream", False) for call in desk.world.seen] == [True, False]
        await _fine(page, desk)
        await page.get_by_label("API key").fill("psk_wrong")
        await page.get_by_role("button", name="Send").click()
        await page.get_by_text("Failed with status 401").wait_for()
        assert "invalid_api_key" in await page.locator("#output").text_content()
        desk.complaints = [text for text in desk.complaints if "401" not in text]
        await _fine(page, desk)


async def test_without_script_everything_but_the_stream_works(desk: Desk) -> None:
    _, made = await furnish(desk.world)
    async with desk.page(await desk.world.personal("ada@acme"), java_script_enabled=False) as page:
        await page.goto("/portal/try")
        assert not await page.get_by_label("Stream the answer").is_visible()
        await page.get_by_label("API key").fill(made[0][0])
        await page.get_by_label("Prompt", exact=True).fill("Say hello")
        await page.get_by_role("button", name="Send").click()
        await page.get_by_text("Hello from the model").wait_for()
        await page.goto("/portal/keys")
        await page.get_by_role("region", name="New key").get_by_role("button").click()
        await page.get_by_role("heading", name="Your new key").wait_for()
        assert not await page.get_by_role("button", name="Copy key").is_visible()


async def test_the_keyboard_gets_everywhere_in_reading_order(desk: Desk) -> None:
    await furnish(desk.world)
    where = """() => {
        const e = document.activeElement, row = e.closest("tr") || e;
        const name = e.textContent.trim().slice(0, 20) || e.id;
        return [name, getComputedStyle(e).outlineStyle, row.getBoundingClientRect().top];
    }"""
    async with desk.page(await desk.world.personal("ada@acme")) as page:
        await page.goto("/portal/keys")
        seen = []
        for _ in range(16):
            await page.keyboard.press("Tab")
            seen.append(await page.evaluate(where))
        names = [name for name, _, _ in seen]
        links = "Overview, Products, Apps, Keys, Usage, Limits, Try it"
        assert ", ".join(names[:10]) == f"Skip to content, Penstock, {links}, Sign out"
        assert {style for _, style, _ in seen} == {"solid"}
        tops = [top for _, _, top in seen[10:]]
        assert tops == sorted(tops)
        await page.goto("/portal/keys")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.getElementById('main').contains(document.activeElement)")


async def test_every_page_fits_a_narrow_window_and_has_a_dark_form(desk: Desk) -> None:
    _, made = await furnish(desk.world)
    long = {"displayName": HOSTILE * 2, "products": [{"product": "hostile", "status": "pending"}]}
    await desk.world.key(await desk.world.app("a" * 63, **long), "k" * 200)
    key = await desk.world.personal("ada@acme")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    pages = [*PAGES, f"keys/{made[0][1].id}/rotate", f"keys/{made[0][1].id}/revoke", "apps/" + "a" * 63]
    for scheme, width, colour in (
        ("light", 320, "rgb(245, 247, 250)"),
        ("dark", 320, "rgb(16, 20, 26)"),
        ("light", 1200, "rgb(245, 247, 250)"),
        ("dark", 1200, "rgb(16, 20, 26)"),
    ):
        async with desk.page(key, width=width, color_scheme=scheme) as page:
            for path in pages:
                await page.goto(f"/portal/{path}")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
                assert await page.evaluate(ground) == colour
                await _shot(
                    page, f"{re.sub('[a-z2-7]{16}', 'ID', path).replace('/', '-') or 'overview'}-{scheme}-{width}"
                )
            await _fine(page, desk)


async def _shot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        await page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)
