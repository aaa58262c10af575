from collections.abc import AsyncIterator

import pytest

from tests.unit.kube.fake import FakeApi, fake_api


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with fake_api() as made:
        yield made
