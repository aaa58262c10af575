"""Two pods are one gateway: one quota, one set of keys; either can go without anybody losing an answer."""

import asyncio
import signal
from collections import Counter

import httpx
import pytest

from tests.dataplane.apimgmt.declaration import SLOW
from tests.dataplane.apimgmt.managed import BOOKS, CHAT, Managed, chat
from tests.dataplane.apimgmt.test_limits import limit, race
from tests.support.stack import eventually

pytestmark = pytest.mark.xdist_group("apimgmt")


async def requests_of(managed: Managed, organization: str, outcome: str) -> list[float]:
    """Return how many requests each pod has counted."""
    found = []
    for pod in managed.pods:
        samples = await managed.stack.metrics(pod)
        labels = (f'organization="{organization}"', f'outcome="{outcome}"')
        name = "penstock_apimgmt_requests_total"
        found.append(sum(v for k, v in samples.items() if k.startswith(name) and all(label in k for label in labels)))
    return found


async def test_two_pods_share_one_quota(valkey: Managed) -> None:
    tenant = valkey.tenant([limit("few", "requests", 40), limit("at-once", "concurrent", 20, window=None), *BOOKS[:1]])
    answers = [answer for _ in range(4) for answer in await race(tenant, chat(model=SLOW, max_tokens=3), 32)]
    counts = Counter(answer.status_code for answer in answers)
    assert counts == {200: 40, 429: 88}
    passed = await requests_of(valkey, tenant.name, "ok")
    assert len(passed) == 2
    assert sum(passed) == 40
    assert min(passed) > 0, "both pods passed some"
    await tenant.balanced()


async def test_a_limit_that_is_lowered_binds_both_pods(valkey: Managed) -> None:
    tenant = valkey.tenant([limit("many", "requests", 1000)])
    assert {a.status_code for a in await race(tenant, chat(), 8)} == {200}
    lowered = {"scope": "organization", "kind": "requests", "amount": 8, "window": "month"}
    valkey.put(f"/limits/{tenant.name}-many", lowered)

    async def refuses() -> bool:
        return {a.status_code for a in await race(tenant, chat(), 16)} == {429}

    await eventually(refuses, "both pods refuse", 2)


async def test_a_pod_that_is_stopped_finishes_what_it_began(managed: Managed) -> None:
    """SIGTERM, as when a deployment is rolled out: what is under way is answered and booked, and nothing is lost."""
    tenant, stack = managed.tenant(), managed.stack
    pod = managed.pods[0]
    body = chat(model=SLOW, max_tokens=80, ignore_eos=True)
    async with tenant.http() as http:
        tasks = [asyncio.create_task(http.post(CHAT, json={**body, "stream": i % 2 == 0})) for i in range(12)]

        async def busy() -> bool:
            return bool((await stack.state(f"{SLOW}-a-0"))["running"] == 12)

        await eventually(busy, "twelve requests run")
        process = stack.processes.pop(pod)
        process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await asyncio.to_thread(process.wait, 30) == 0
        stack.start(pod)
        await stack.ready(pod)
    assert Counter(a.status_code if isinstance(a, httpx.Response) else repr(a) for a in answers) == {200: 12}
    assert all(a.text.endswith("data: [DONE]\n\n") for a in answers[::2] if isinstance(a, httpx.Response))
    assert {r["outcome"] for r in await tenant.recorded(12)} == {"ok"}
    await tenant.balanced()
