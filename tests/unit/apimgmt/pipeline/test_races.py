"""Any interleaving of requests and endings: counters equal the ledger, and no ceiling is passed."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.extproc.session import Session
from tests.support.extproc import body, headers
from tests.unit.apimgmt.pipeline.world import CHAT, World, event, limit

CEILINGS = {"requests": 6, "tokens": 240, "open": 3, "day": 400}
LIMITS = [
    limit("requests", "requests", CEILINGS["requests"]),
    limit("tokens", "tokens", CEILINGS["tokens"], "hour", rolling=True),
    limit("open", "concurrent", CEILINGS["open"], None, scope="organization"),
    limit("day", "tokens", CEILINGS["day"], "day", scope="user"),
]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 60)),
        st.tuples(st.just("answer"), st.integers(0, 9), st.integers(0, 20)),
        st.tuples(st.just("fail"), st.integers(0, 9), st.sampled_from([400, 429, 500, 503])),
        st.tuples(st.just("stream"), st.integers(0, 9), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
    ),
    max_size=25,
)


class Traffic:
    """Requests that are open, in any state."""

    def __init__(self, world: World) -> None:
        self.world, self.asked, self.ended = world, 0, 0
        self.open: list[Session] = []

    async def ask(self, output: int) -> None:
        opened = self.world.session()
        self.asked += 1
        data = {**CHAT, "max_tokens": output}
        answers = await self.world.request(opened, data)
        if answers[0].HasField("immediate_response"):
            assert answers[0].immediate_response.status.code == 429
            opened.close()
        else:
            self.open.append(opened)

    async def answer(self, which: int, completion: int) -> None:
        """The model says what was used, never more than it was allowed to: then reservations are upper bounds."""
        if opened := self._take(which):
            usage = {"prompt_tokens": 3, "completion_tokens": min(completion, self._allowed(opened)), "total_tokens": 0}
            await opened.receive(headers("response", {":status": "200", "content-type": "application/json"}))
            await opened.receive(body("response", json.dumps({"choices": [], "usage": usage}).encode(), last=True))
            opened.close()

    async def fail(self, which: int, status: int) -> None:
        if opened := self._take(which):
            await opened.receive(headers("response", {":status": str(status)}, last=True))
            opened.close()

    async def stream(self, which: int, events: int) -> None:
        """A stream that breaks off."""
        if opened := self._take(which):
            await opened.receive(headers("response", {":status": "200", "content-type": "text/event-stream"}))
            for _ in range(min(events, self._allowed(opened))):
                await opened.receive(body("response", event("a")))
            opened.close()

    async def leave(self, which: int) -> None:
        if opened := self._take(which):
            opened.close()

    def _take(self, which: int) -> Session | None:
        return self.open.pop(which % len(self.open)) if self.open else None

    @staticmethod
    def _allowed(opened: Session) -> int:
        parsed: Any = opened.exchange.request_json()
        return int(parsed["max_tokens"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(STEPS, st.booleans())
def test_counters_equal_the_ledger(steps: list[tuple[Any, ...]], together: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_play(Path(folder), steps, together))


async def _play(folder: Path, steps: list[tuple[Any, ...]], together: bool) -> None:
    async with World(folder, limits=LIMITS) as world:
        traffic = Traffic(world)

        async def step(name: str, *arguments: int) -> None:
            await getattr(traffic, name)(*arguments)
            for counted, total in (await world.totals()).items():
                assert 0 <= total <= CEILINGS[counted], counted

        if together:
            async with asyncio.TaskGroup() as group:
                for each in steps:
                    group.create_task(step(*each))
        else:
            for each in steps:
                await step(*each)
        while traffic.open:
            await traffic.leave(0)
        records = await world.records()
        assert len(records) == traffic.asked == len({record["id"] for record in records})
        charged = [r for r in records if r["outcome"] in ("ok", "aborted")]
        tokens = sum(record["promptTokens"] + record["completionTokens"] for record in records)
        totals = await world.totals()
        assert totals == {"requests": len(charged), "tokens": tokens, "open": 0, "day": tokens}
        assert world.metrics.in_flight == 0
