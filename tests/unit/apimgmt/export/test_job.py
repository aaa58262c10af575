"""The job: what it writes when, how it goes on after failures, and that nothing is there twice or not at all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.ledger.export import Export, exported, job
from services.apimgmt.ledger.export.state import NOTE, load
from services.apimgmt.ledger.record import dump
from services.apimgmt.store.api import Settlement, Store, StoreError
from tests.unit.apimgmt.export.objects import object_server
from tests.unit.apimgmt.export.support import (
    LEASE_S,
    NOW,
    Clock,
    drain,
    exporter,
    files,
    record,
    settle,
    sqlite,
    union,
    until,
    whole_ledger,
)

DAY = 86_400


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await sqlite(tmp_path / "store.db")
    yield opened
    await opened.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def metric(export: Export, name: str, *labels: str) -> int:
    return int(getattr(export._metrics, name).counts[labels])


async def test_objects_follow_each_other_at_intervals(store: Store, out: Path) -> None:
    clock = Clock()
    export = exporter(store, f"file://{out}", clock, max_records=10, interval_seconds=60)
    assert await export.step() == 60
    assert files(out) == {}
    await settle(store, range(25))
    assert await export.step() == 0
    assert await export.step() == 0
    assert await export.step() == 60
    assert [len(union({name: data})) for name, data in sorted(files(out).items())] == [10, 10, 5]
    await settle(store, range(25, 30))
    clock.now += 59
    assert await export.step() == 1
    assert len(files(out)) == 3
    clock.now += 1
    assert await export.step() == 60
    assert [name[:28] for name in sorted(files(out))] == [f"dt=2027-01-15/part-0000000{n}-" for n in (1, 2, 3, 4)]
    assert union(files(out)) == await whole_ledger(store)
    assert (metric(export, "records"), metric(export, "objects")) == (30, 4)
    assert metric(export, "bytes") == sum(map(len, files(out).values()))
    assert export._metrics.complete == clock.now


async def test_an_object_ends_at_its_size(store: Store, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MAX_BYTES", 5000)
    monkeypatch.setattr(job, "PAGE", 4)
    await settle(store, range(30))
    await drain(exporter(store, f"file://{out}", Clock()))
    assert [len(union({name: data})) for name, data in sorted(files(out).items())] == [12, 12, 6]


async def test_what_does_not_fit_the_schema_is_kept_apart(store: Store, out: Path, caplog: Any) -> None:
    await settle(store, range(5))
    await settle(store, [5], colour="red")
    await store.settle(Settlement("x", "acme", NOW, (), (), b"{", {}))
    export = exporter(store, f"file://{out}", Clock(), format="parquet")
    await drain(export)
    apart = {name: data for name, data in files(out).items() if name.startswith("unfit/")}
    assert list(apart.values()) == [b"{\n" + dump(record(5, colour="red")) + b"\n"]
    (name,) = apart
    assert name.endswith(".jsonl")
    (fit,) = (data for name, data in files(out).items() if name.startswith("dt="))
    assert union({"a.parquet": fit}) == [record(n) for n in range(5)]
    assert (metric(export, "records"), metric(export, "unfit"), metric(export, "objects")) == (7, 2, 2)
    assert "do not fit" in caplog.text


async def test_only_unfit_records_make_no_empty_object(store: Store, out: Path) -> None:
    await settle(store, [1], colour="red")
    await drain(exporter(store, f"file://{out}", Clock()))
    assert [name.partition("/")[0] for name in files(out)] == ["unfit"]


class Crash(BaseException):
    """The process ends here."""


class Fragile:
    """Passes calls on, and fails at one of them: before it has an effect, or after."""

    def __init__(self, inner: Any, steps: list[int], at: int, error: type[BaseException]) -> None:
        """`steps` counts calls, two points each; it is shared by several of this kind."""
        self._inner, self._steps, self._at, self._error = inner, steps, at, error

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self._point()
            answer = await getattr(self._inner, name)(*args, **kwargs)
            self._point()
            return answer

        return call

    def _point(self) -> None:
        self._steps[0] += 1
        if self._steps[0] == self._at:
            raise self._error("here")


def fragile(store: Store, out: Path, clock: Clock, at: int, error: type[BaseException], **settings: Any) -> Export:
    export = exporter(store, f"file://{out}", clock, **settings)
    steps = [0]
    inner = job.Target(export._settings)
    export._store = Fragile(store, steps, at, error)  # type: ignore[assignment]
    export._target = Fragile(inner, steps, at, error)  # type: ignore[assignment]
    return export


@pytest.mark.parametrize("at", range(1, 25))
async def test_a_process_that_ends_anywhere_leaves_nothing_twice(store: Store, out: Path, at: int) -> None:
    clock = Clock()
    await settle(store, range(25))
    with pytest.raises(Crash):
        await drain(fragile(store, out, clock, at, Crash, max_records=10))
    await settle(store, range(25, 32))
    follower = exporter(store, f"file://{out}", clock, max_records=10)
    await drain(follower)
    clock.now += LEASE_S + 300  # the lease of the first has ended, the next object is due
    await drain(follower)
    clock.now += 300
    await drain(follower)
    assert union(files(out)) == await whole_ledger(store)


@pytest.mark.parametrize("at", range(1, 25, 2))
async def test_a_store_that_fails_is_asked_again(store: Store, out: Path, at: int) -> None:
    await settle(store, range(25))
    export = fragile(store, out, Clock(), at, StoreError, max_records=10)
    with pytest.raises(StoreError):
        await drain(export)
    await drain(export)
    assert union(files(out)) == await whole_ledger(store)


async def test_a_plan_is_carried_out_to_the_same_bytes(store: Store, out: Path) -> None:
    clock, sides = Clock(), {}
    await settle(store, range(10))
    writes = 7  # note, ledger, ledger (the end), put_note: two points each, then the object's
    with pytest.raises(Crash):
        await fragile(store, out, clock, writes + 3, Crash).step()
    sides["first"] = files(out)
    for name in sides["first"]:
        (out / name).unlink()  # as if it had never come there
    await settle(store, range(10, 20))
    clock.now += DAY
    await drain(exporter(store, f"file://{out}", clock, format="parquet"))
    sides["second"] = {name: data for name, data in files(out).items() if name.endswith(".jsonl")}
    assert len(sides["first"]) == 1
    assert sides["first"] == sides["second"]
    assert union(files(out)) == await whole_ledger(store)


async def test_two_processes_share_the_work(store: Store, out: Path, tmp_path: Path) -> None:
    clock = Clock()
    others = [store, await sqlite(tmp_path / "store.db"), await sqlite(tmp_path / "store.db")]
    jobs = [exporter(one, f"file://{out}", clock, max_records=7) for one in others]

    async def work(export: Export) -> None:
        for _ in range(60):
            await export.step()
            clock.now += 7  # leases end while others write
            await asyncio.sleep(0)

    async def write() -> None:
        for n in range(0, 200, 4):
            await settle(store, range(n, n + 4))

    await asyncio.gather(write(), *map(work, jobs))
    clock.now += LEASE_S + 300
    await drain(jobs[0])
    assert union(files(out)) == await whole_ledger(store)
    assert sum(metric(export, "records") for export in jobs) == 200
    for one in others[1:]:
        await one.close()


async def test_others_wait_while_one_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-key")
    clock = Clock()
    await settle(store, range(5))
    with object_server() as objects:
        objects.hang.clear()
        first, second = (exporter(store, "s3://ledger/a", clock, endpoint=objects.url) for _ in range(2))
        first_step = asyncio.create_task(first.step())
        await until(objects.waiting.is_set)
        assert 0 < await second.step() <= job.LOOK_S
        clock.now += LEASE_S
        takes_over = asyncio.create_task(second.step())
        await until(lambda: len(objects.puts) == 2)
        objects.hang.set()
        await asyncio.gather(first_step, takes_over)
        assert union(objects.held) == await whole_ledger(store)
        assert metric(first, "records") + metric(second, "records") == 5


async def test_a_wrong_clock_stops_nobody(store: Store, out: Path) -> None:
    clock, ahead = Clock(), Clock()
    ahead.now += 3650 * DAY
    await settle(store, range(5))
    with pytest.raises(Crash):
        await fragile(store, out, ahead, 9, Crash).step()  # it has the lease, and wrote nothing
    await drain(exporter(store, f"file://{out}", clock))
    assert union(files(out)) == await whole_ledger(store)


async def test_the_run_goes_on_after_failures(store: Store, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BACKOFF_S", (0.01, 0.05))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-key")
    caplog.set_level(logging.INFO)
    await settle(store, range(5))
    with object_server() as objects:
        objects.status = 503
        export = exporter(store, "s3://ledger/a", Clock(), endpoint=objects.url)
        running = asyncio.create_task(export.run())
        await until(lambda: metric(export, "failures", "target") >= 2)
        objects.status = 0
        await until(lambda: metric(export, "records") > 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert union(objects.held) == await whole_ledger(store)
    assert "could not be exported" in caplog.text
    assert "hidden-key" not in "".join(str(vars(one)) for one in caplog.records)


async def test_pauses_grow_and_unknown_failures_are_no_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    export, pauses = exporter(store, "file:///nowhere", Clock()), list[float]()

    async def broken() -> float:
        raise RuntimeError("x") if len(pauses) % 2 else StoreError("away")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            raise asyncio.CancelledError

    monkeypatch.setattr(export, "step", broken)
    monkeypatch.setattr(job.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await export.run()
    assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(pauses[:8]))
    assert 150 <= pauses[-1] <= 300
    assert (metric(export, "failures", "store"), metric(export, "failures", "other")) == (6, 6)


async def test_only_what_was_exported_is_pruned(store: Store, out: Path) -> None:
    assert await exported(store) == ""
    await settle(store, range(10))
    assert await store.prune(NOW + DAY, await exported(store)) == 0
    export = exporter(store, f"file://{out}", Clock(), max_records=4)
    await export.step()
    assert await store.prune(NOW + DAY, await exported(store)) == 4
    await drain(export)
    assert [one["id"] for one in union(files(out))] == [record(n)["id"] for n in range(10)]


async def test_records_that_were_pruned_while_there_was_no_export_stop_nothing(
    store: Store, out: Path, caplog: Any
) -> None:
    clock = Clock()
    await settle(store, range(10))
    with pytest.raises(Crash):
        await fragile(store, out, clock, 9, Crash).step()
    assert files(out) == {}
    await store.prune(NOW + DAY)
    await settle(store, range(10, 13))
    clock.now += LEASE_S
    await drain(exporter(store, f"file://{out}", clock))
    assert union(files(out)) == [record(n) for n in range(10, 13)]
    assert "dropped from the ledger before" in caplog.text


async def test_stores_of_their_own_have_objects_of_their_own(tmp_path: Path, out: Path) -> None:
    for name in ("one", "two"):
        store = await sqlite(tmp_path / f"{name}.db")
        await settle(store, range(5))
        await drain(exporter(store, f"file://{out}", Clock()))
        await store.close()
    assert len(files(out)) == 2


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b'{"plan":null}', b'{"plan":{"x":1},"lineage":"a"}', b'{"plan":null,"b":1}']
)
async def test_a_note_that_cannot_be_read_is_told(store: Store, text: bytes) -> None:
    await store.put_note(NOTE, text, 0)
    with pytest.raises(StoreError, match="note ledger-export: cannot be read"):
        await load(store)
