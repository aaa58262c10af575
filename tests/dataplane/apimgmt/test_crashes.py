"""API management is killed under load: no answer without its record, none twice, and nothing held when leases end."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.dataplane.apimgmt.declaration import ALPHA, LEASE_S
from tests.dataplane.apimgmt.managed import CHAT, Managed, Tenant, chat
from tests.support.stack import eventually, metrics, total

pytestmark = pytest.mark.xdist_group("apimgmt")

CLIENTS, ANSWERS = 16, 12
RETRY_S = 0.05
SETTLED_S = LEASE_S + 10.0
"""A lease ends, and somebody looks at it: twice in its length at least."""


@dataclass
class Client:
    """Asks one request after the other with its own key; each asks for another number of tokens, which names it."""

    key: str
    key_id: str
    complete: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By the tokens asked for: prompt and completion tokens as the client was told."""
    broken: list[int] = field(default_factory=list)
    """Sent, and not answered in full."""

    async def run(self, tenant: Tenant, over: asyncio.Event) -> None:
        """Ask until it is over, and enough was answered."""
        asked = 0
        async with tenant.http(self.key) as http:
            while len(self.complete) < ANSWERS or not over.is_set():
                asked += 1
                usage = await self._ask(http, asked)
                if usage is None:
                    self.broken.append(asked)
                    await asyncio.sleep(RETRY_S)  # pacing of a client that meets a closed door
                else:
                    self.complete[asked] = usage

    async def _ask(self, http: httpx.AsyncClient, tokens: int) -> tuple[int, int] | None:
        body: dict[str, Any] = chat("Count.", max_tokens=tokens, ignore_eos=True)
        if tokens % 2:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            answer = await http.post(CHAT, json=body)
        except httpx.TransportError:
            return None
        if answer.status_code != 200:
            assert answer.status_code >= 500, answer.text
            return None
        if tokens % 2:
            assert answer.text.endswith("data: [DONE]\n\n")
            usage = json.loads(answer.text.split("\n\n")[-3].removeprefix("data: "))["usage"]
        else:
            usage = answer.json()["usage"]
        return usage["prompt_tokens"], usage["completion_tokens"]


async def generated(managed: Managed) -> float:
    """Return the completion tokens that the replicas have made."""
    ports = [managed.stack.pieces[name].port for name in managed.stack.named("replica", f"{ALPHA}-a-")]
    return sum([total(await metrics(port), "vllm:generation_tokens_total") for port in ports])


@pytest.mark.parametrize("kills", [0, 2])
async def test_the_ledger_is_what_clients_got_and_replicas_made(managed: Managed, kills: int) -> None:
    tenant, stack = managed.tenant(), managed.stack
    issued = [managed.issue(tenant.name) for _ in range(CLIENTS)]
    clients = [Client(each["key"], each["id"]) for each in issued]
    before = await generated(managed)
    over = asyncio.Event()
    tasks = [asyncio.create_task(client.run(tenant, over)) for client in clients]
    for kill in range(kills):
        pod = managed.pods[kill % len(managed.pods)]
        wanted = sum(len(client.complete) for client in clients) + CLIENTS * 3

        async def busy(wanted: int = wanted) -> bool:
            return sum(len(client.complete) for client in clients) >= wanted

        await eventually(busy, "clients are answered")
        stack.kill(pod)
        stack.start(pod)
        await stack.ready(pod)
    over.set()
    await asyncio.gather(*tasks)
    await tenant.balanced(SETTLED_S)
    made = await generated(managed) - before

    records = tenant.records()
    ok = Counter((r["key"], r["promptTokens"], r["completionTokens"]) for r in records if r["outcome"] == "ok")
    got = Counter((client.key_id, *usage) for client in clients for usage in client.complete.values())
    assert set(ok.values()) == {1}, "no answer is booked twice"
    assert not got - ok, "every answer that a client has is booked"
    assert len({r["id"] for r in records}) == len(records)
    sent = {client.key_id: len(client.complete) + len(client.broken) for client in clients}
    assert all(number <= sent[key] for key, number in Counter(r["key"] for r in records).items())
    tokens = sum(completion for _, _, completion in ok.elements())
    if not kills:
        assert tokens == made
        assert {r["outcome"] for r in records} == {"ok"}
        assert got == ok
        return
    assert tokens <= made <= tokens + sum(sum(client.broken) for client in clients)
    lost = [r for r in records if r["outcome"] == "lost"]
    assert lost, "something was under way"
    assert all(r["estimated"] and r["promptTokens"] > 0 and r["completionTokens"] == 0 for r in lost)
    assert len(records) - len(got) <= sum(len(client.broken) for client in clients)
