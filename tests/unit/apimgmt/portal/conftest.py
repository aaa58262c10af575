from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.apimgmt.domain import App, KeyRecord
from tests.unit.apimgmt.portal.world import Browser, World, furnish, serve


@dataclass
class Site:
    world: World
    url: str
    browsers: list[Browser]

    def browser(self) -> Browser:
        self.browsers.append(Browser(self.url))
        return self.browsers[-1]

    async def visit(self, developer: str = "ada@acme") -> Browser:
        """Return a browser in which somebody is signed in."""
        browser = self.browser()
        answer = await browser.sign_in(await self.world.personal(developer))
        assert answer.status_code == 303, answer.text
        return browser

    async def furnish(self) -> tuple[App, list[tuple[str, KeyRecord]]]:
        return await furnish(self.world)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A portal with a gateway behind its try-it page."""
    async with serve(tmp_path, gateway=True) as (world, url):
        found = Site(world, url, [])
        yield found
        for browser in found.browsers:
            await browser.client.aclose()
