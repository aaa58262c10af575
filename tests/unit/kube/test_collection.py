"""Lists and watches against a scripted API server: everything that can go wrong with a watch does."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kube import collection as module
from services.kube import credentials as credentials_module
from services.kube.collection import ApiError, Broken, Collection
from services.kube.credentials import Credentials
from tests.unit.kube.fake import (
    AUTHORITY,
    Answer,
    FakeApi,
    Listing,
    Watching,
    bookmark,
    error,
    event,
    item,
)

PATH = "/api/v1/namespaces/ns/pods"


class Copy:
    """A collection of `value` by name, and what it told."""

    def __init__(self, credentials: Credentials, **options: Any) -> None:
        self.changes = 0
        self.reasons: list[str] = []
        self.of = Collection(
            credentials, PATH, value, self._changed, on_restart=self.reasons.append,
            **{"backoff_s": (0.001, 0.01), **options},
        )  # fmt: skip

    def _changed(self) -> None:
        self.changes += 1

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, f"{what}; has {self.of.objects}, told {self.reasons}"
            await asyncio.sleep(0.002)

    async def has(self, **expected: int) -> None:
        await self.until(lambda: self.of.synced and self.of.objects == expected, f"expected {expected}")


def value(item: Mapping[str, Any]) -> int:
    return int(item["value"])


@contextlib.asynccontextmanager
async def copying(api: FakeApi | Credentials, **options: Any) -> AsyncIterator[Copy]:
    copy = Copy(api.credentials() if isinstance(api, FakeApi) else api, **options)
    task = asyncio.create_task(copy.of.run())
    try:
        yield copy
        assert not task.done(), "the copy is kept until cancelled"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_list_and_its_watch(api: FakeApi) -> None:
    api.script(
        PATH,
        Listing([item("a", value=1), item("b", value=2)], 7),
        Watching([event("ADDED", "c", 8, value=3), event("MODIFIED", "a", 9, value=5), event("DELETED", "b", 10)]),
    )
    async with copying(api, selector={"x": "1", "a.b/c": "2"}, name="n") as copy:
        await copy.has(a=5, c=3)
        assert copy.of.connected
    listed, watched = api.asked
    assert listed.query == {"labelSelector": "a.b/c=2,x=1", "fieldSelector": "metadata.name=n", "limit": "500"}
    assert {"resourceVersion": "7", "allowWatchBookmarks": "true"}.items() <= watched.query.items()
    assert 300 <= int(watched.query["timeoutSeconds"]) <= 600
    assert listed.token == watched.token == "Bearer secret"
    assert copy.reasons == []


async def test_a_list_of_several_pages(api: FakeApi) -> None:
    api.script(PATH, Listing([item("a", value=1)], 5, onward="more"), Listing([item("b", value=2)], 6))
    async with copying(api) as copy:
        await copy.has(a=1, b=2)
    assert copy.changes == 1, "half a list is never shown"
    assert api.asked[1].query["continue"] == "more"
    assert api.asked[2].query["resourceVersion"] == "6"


async def test_a_watch_that_is_cut_resumes_where_it_was(api: FakeApi) -> None:
    half = event("MODIFIED", "a", 9, value=9)[:20]
    api.script(
        PATH,
        Listing([item("a", value=1)], 7),
        Watching([event("ADDED", "b", 8, value=2), half], "cut"),
        Watching([event("MODIFIED", "a", 9, value=9)]),
    )
    async with copying(api) as copy:
        await copy.has(a=9, b=2)
    assert [asked.query.get("resourceVersion") for asked in api.asked] == [None, "7", "8"]
    assert copy.reasons == ["cut"]


async def test_an_event_may_come_in_pieces_and_several_in_one(api: FakeApi) -> None:
    both = event("ADDED", "a", 2, value=1) + event("ADDED", "b", 3, value=2)
    api.script(PATH, Listing([]), Watching([both[:1], both[1:70], both[70:], b"\n", bookmark(4)]))
    async with copying(api) as copy:
        await copy.has(a=1, b=2)


async def test_bookmarks_move_the_place_to_resume(api: FakeApi) -> None:
    api.script(PATH, Listing([item("a", value=1)], 7), Watching([bookmark(900)], "cut"))
    async with copying(api) as copy:
        await copy.until(lambda: len(api.asked) == 3, "resumed")
    assert api.asked[2].query["resourceVersion"] == "900"
    assert copy.of.objects == {"a": 1}
    assert copy.changes == 1


@pytest.mark.parametrize("gone", [Watching([error(410)], "end"), Answer(410)], ids=["event", "status"])
async def test_410_lists_again_and_finds_what_was_deleted_meanwhile(api: FakeApi, gone: Watching | Answer) -> None:
    api.script(PATH, Listing([item("a", value=1), item("b", value=2)], 7), gone, Listing([item("b", value=3)], 70))
    async with copying(api) as copy:
        await copy.has(b=3)
        await copy.until(lambda: len(api.asked) == 4, "watches again")
    assert [asked.watch for asked in api.asked] == [False, True, False, True]
    assert api.asked[3].query["resourceVersion"] == "70"
    assert copy.reasons == ["gone"]


async def test_410_in_the_middle_of_a_list_starts_the_list_over(api: FakeApi) -> None:
    api.script(PATH, Listing([item("a", value=1)], 5, onward="more"), Answer(410), Listing([item("b", value=2)], 9))
    async with copying(api) as copy:
        await copy.has(b=2)
    assert "continue" not in api.asked[2].query


GARBAGE = [
    b"not json\n",
    b"[]\n",
    b"{}\n",
    b'{"type": "ADDED"}\n',
    b'{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n',
    b'{"type": "ADDED", "object": {"metadata": {"name": "x", "resourceVersion": "3"}, "value": "many"}}\n',
    b'{"type": "ERROR", "object": {"code": "x"}}\n',
    b'{"type": "MODIFIED", "object": null}\n',
    b"\xff\xfe\n",
]


@pytest.mark.parametrize("line", GARBAGE)
async def test_what_is_no_event_leads_to_a_new_list(api: FakeApi, line: bytes) -> None:
    api.script(
        PATH, Listing([item("a", value=1)], 7), Watching([line], "hold"), Listing([item("a", value=2)], 9), Watching()
    )
    async with copying(api) as copy:
        await copy.has(a=2)
    assert copy.reasons == ["garbage"]


async def test_an_unknown_kind_of_event_is_passed_over(api: FakeApi) -> None:
    api.script(PATH, Listing([], 7), Watching([event("FUTURE", "x", 8), event("ADDED", "a", 9, value=1)]))
    async with copying(api) as copy:
        await copy.has(a=1)
    assert copy.reasons == []


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>", b'{"items": [{}], "metadata": {"resourceVersion": "1"}}'])
async def test_what_is_no_list_is_asked_for_again(api: FakeApi, body: bytes) -> None:
    api.script(PATH, Answer(200, body), Answer(200, body), Listing([item("a", value=1)]))
    async with copying(api) as copy:
        await copy.has(a=1)
    assert copy.reasons == ["garbage", "garbage"]


async def test_a_line_without_end_is_given_up(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1000)
    api.script(PATH, Listing([], 7), Watching([b"x" * 400] * 5), Listing([item("a", value=1)]))
    async with copying(api) as copy:
        await copy.has(a=1)


async def test_silence_is_taken_for_a_lost_connection(api: FakeApi) -> None:
    api.script(PATH, Listing([item("a", value=1)], 7), Watching(), Watching([event("ADDED", "b", 8, value=2)]))
    async with copying(api, silence_s=0.05) as copy:
        await copy.has(a=1, b=2)
    assert copy.reasons[0] == "silent"
    assert api.asked[2].query["resourceVersion"] == "7"


async def test_a_watch_that_ends_at_once_is_not_opened_in_a_hurry(api: FakeApi) -> None:
    api.script(PATH, Listing([item("a", value=1)], 7), *[Watching([], "end")] * 3)
    async with copying(api, backoff_s=(0.02, 0.02)) as copy:
        began = time.monotonic()
        await copy.until(lambda: len(copy.reasons) == 3, "three short watches")
        assert time.monotonic() - began >= 0.02, "two pauses of at least 10 ms"
    assert copy.reasons == ["short"] * 3


async def test_the_last_view_stays_while_the_server_is_away(api: FakeApi) -> None:
    api.script(PATH, Listing([item("a", value=1)], 7), *[Answer(503)] * 2, Watching([event("ADDED", "b", 8, value=2)]))
    async with copying(api) as copy:
        await copy.has(a=1, b=2)
    assert copy.changes == 2
    assert copy.reasons == ["refused", "refused"]
    assert api.asked[-1].query["resourceVersion"] == "7", "a server that is busy does not cost a new list"


async def test_after_several_failures_the_place_is_given_up_for_a_new_list(api: FakeApi) -> None:
    """A server that was restored from a backup never reaches the version that a client has seen."""
    api.script(PATH, Listing([item("a", value=1)], 900), *[Answer(504)] * 4, Listing([item("b", value=2)], 3))
    async with copying(api) as copy:
        await copy.has(b=2)


async def test_nothing_is_known_before_a_complete_list(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    api.script(PATH, *[Answer(403, b'{"message": "pods is forbidden"}')] * 3, Listing([]))
    with caplog.at_level(logging.WARNING):
        async with copying(api) as copy:
            await copy.until(lambda: len(api.asked) == 2, "asked twice")
            assert not copy.of.synced
            await copy.has()
    assert copy.changes == 1, "an empty list is a list"
    told = [record for record in caplog.records if "Kubernetes API" in record.message]
    assert len(told) == 1, "equal failures are told once"
    assert "pods is forbidden" in str(vars(told[0])["error"])


@pytest.mark.parametrize("status", [403, 404])
async def test_an_optional_collection_may_be_absent(api: FakeApi, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ABSENT_S", 0.01)
    api.script(PATH, Answer(status), Listing([item("a", value=1)]), Watching([], "cut"), *[Answer(status)] * 4)
    async with copying(api, optional=True) as copy:
        await copy.has(a=1)
        await copy.has()
    assert copy.changes == 3, "empty, filled when it comes, empty when it goes"


async def test_watches_that_held_for_a_while_are_no_row_of_failures(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEADY_S", 0.0)
    api.script(PATH, Listing([item("a", value=1)], 7), *[Watching([], "cut")] * 6, *[Watching([], "end")] * 3)
    async with copying(api) as copy:
        await copy.until(lambda: len(api.asked) == 11, "all of them")
    assert len([asked for asked in api.asked if not asked.watch]) == 1, "one list is enough"
    assert copy.reasons == ["cut"] * 6, "a watch that ends as agreed is none"


async def test_a_slow_list_is_given_up_and_asked_for_again(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials_module, "TIMEOUT_S", 0.05)
    api.script(PATH, Listing([item("a", value=1)], delay_s=5), Listing([item("a", value=2)]))
    async with copying(api) as copy:
        await copy.has(a=2)
    assert copy.reasons[0] == "silent"


async def test_what_nobody_thought_of_does_not_end_the_watching(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    def bug() -> None:
        raise RuntimeError("bug")

    api.script(PATH, Listing([item("a", value=1)], 7), Watching([event("ADDED", "b", 8, value=2)]))
    async with copying(api) as copy:
        copy.of._on_change = bug
        await copy.until(lambda: copy.reasons, "it broke")
        copy.of._on_change = copy._changed
        await copy.has(a=1, b=2)
    assert any(record.message == "a watch failed" for record in caplog.records)


async def test_nobody_listens(api: FakeApi) -> None:
    async with copying(Credentials("http://127.0.0.1:1", "t", AUTHORITY)) as copy:
        await copy.until(lambda: len(copy.reasons) >= 3, "three attempts")
        assert not copy.of.synced
    assert set(copy.reasons) == {"cut"}


def test_pauses_grow_and_differ() -> None:
    copy = Copy(Credentials("http://x", "t", AUTHORITY), backoff_s=(0.2, 15.0))
    pauses = [copy.of._pause() for _ in range(30)]
    for position, pause in enumerate(pauses):
        whole = min(15.0, 0.2 * 2**position)
        assert whole / 2 <= pause <= whole
    assert len(set(pauses[8:])) > 10, "spread by chance"


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["type", "object", "metadata", "name", "code", "value"]), inner)
            ),
            max_leaves=12,
        ).map(lambda value: module.orjson.dumps(value)),
    )
)
def test_any_line_is_an_event_or_refused(line: bytes) -> None:
    copy = Copy(Credentials("http://x", "t", AUTHORITY))
    try:
        copy.of._take(line)
    except (ApiError, Broken):
        assert copy.of._version == "", "a new list is needed"
