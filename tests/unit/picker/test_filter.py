from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.extproc.api import Ending, Exchange, Headers, Outcome, Reply
from services.picker.config import PickerConfig
from services.picker.filter import DESTINATION, LB, SERVED, SUBSET, SUBSET_NAMESPACE, PickerFilter, PickerStream
from services.picker.metrics import ReplicaMetrics
from services.picker.prefix import PrefixIndex
from services.picker.scheduler import Scheduler
from tests.unit.picker.support import address, at, pool_of

OUTCOME = Outcome(Ending.COMPLETE, 200, 0.1, 0, 0)
PROMPT = {"model": "m", "messages": [{"role": "user", "content": "long " * 1000}]}


def picker(*readings: ReplicaMetrics | None, config: PickerConfig | None = None) -> PickerFilter:
    index, config = PrefixIndex(1000), config or PickerConfig()
    pool = pool_of(*readings, index=index)
    return PickerFilter(pool, index, Scheduler(pool, index, config), config.prefix, {"batch": -1, "chat": 5})


def exchange(
    body: object = b"", headers: Mapping[str, str] = {}, metadata: Mapping[str, Mapping[str, object]] = {}
) -> Exchange:
    made = Exchange()
    made.request_headers = Headers((name, value.encode()) for name, value in headers.items())
    made.request_body = body if isinstance(body, bytes) else orjson.dumps(body)
    made.metadata = metadata
    return made


def ask(filter_: PickerFilter, made: Exchange) -> tuple[PickerStream, Reply | None]:
    stream = filter_.open(made)
    answer = stream.on_request_body()
    assert answer is None or isinstance(answer, Reply)
    return stream, answer


def respond(stream: PickerStream, made: Exchange, status: int = 200, served: str | None = None) -> None:
    made.response_headers = Headers([(":status", b"%d" % status)])
    made.metadata = {LB: {SERVED: served}} if served else {}
    assert stream.on_response_headers() is None


def test_header_and_metadata_hold_the_same_list() -> None:
    filter_ = picker(*[ReplicaMetrics(waiting=n) for n in range(4)], config=PickerConfig(max_endpoints=3))
    made = exchange(PROMPT)
    _, answer = ask(filter_, made)
    assert answer is None
    expected = ",".join(address(n).endpoint for n in range(3))
    assert made.request_changes.set == {DESTINATION: expected}
    assert made.dynamic_metadata == {LB: {DESTINATION: expected}}
    assert not made.request_body_changed


def test_a_request_is_counted_until_it_ends() -> None:
    filter_ = picker(ReplicaMetrics())
    stream, _ = ask(filter_, exchange(PROMPT))
    assert at(filter_.pool, 0).in_flight == 1
    stream.on_end(OUTCOME)
    stream.on_end(OUTCOME)
    assert at(filter_.pool, 0).in_flight == 0


def test_the_next_turn_goes_where_the_first_went() -> None:
    filter_ = picker(ReplicaMetrics(), ReplicaMetrics(), ReplicaMetrics())
    made = exchange(PROMPT)
    ask(filter_, made)
    first = made.request_changes.set[DESTINATION]
    for _ in range(5):
        longer = exchange({**PROMPT, "messages": [*PROMPT["messages"], {"role": "assistant", "content": "yes"}]})
        ask(filter_, longer)
        assert longer.request_changes.set[DESTINATION] == first


def test_the_books_follow_the_replica_that_answered() -> None:
    filter_ = picker(ReplicaMetrics(), ReplicaMetrics(waiting=3))
    made = exchange(PROMPT)
    stream, _ = ask(filter_, made)
    hashes = filter_.read(made).hashes
    respond(stream, made, served=address(1).endpoint)
    assert (at(filter_.pool, 0).in_flight, at(filter_.pool, 1).in_flight) == (0, 1)
    assert filter_.index.match(hashes) == [(1 << at(filter_.pool, 1).slot, len(hashes))]
    stream.on_end(OUTCOME)
    assert at(filter_.pool, 1).in_flight == 0


def test_an_answer_from_outside_the_pool_is_taken_off_the_books() -> None:
    filter_ = picker(ReplicaMetrics())
    made = exchange(PROMPT)
    stream, _ = ask(filter_, made)
    respond(stream, made, served="10.9.9.9:1")
    stream.on_end(OUTCOME)
    assert at(filter_.pool, 0).in_flight == 0
    assert len(filter_.index) == 0


@pytest.mark.parametrize(("status", "remembered"), [(200, True), (404, False), (503, False)])
def test_a_prompt_that_was_refused_is_not_in_the_cache(status: int, remembered: bool) -> None:
    filter_ = picker(ReplicaMetrics())
    made = exchange(PROMPT)
    stream, _ = ask(filter_, made)
    respond(stream, made, status, served=address(0).endpoint)
    assert bool(len(filter_.index)) is remembered
    assert at(filter_.pool, 0).in_flight == 1


def test_a_replica_that_left_meanwhile_harms_nobody() -> None:
    filter_ = picker(ReplicaMetrics())
    made = exchange(PROMPT)
    stream, _ = ask(filter_, made)
    filter_.index.drop(at(filter_.pool, 0).slot)
    come, _ = filter_.pool.update([address(3)])
    filter_.index.open(come[0].slot)
    ask(filter_, exchange(PROMPT))
    before = len(filter_.index)
    respond(stream, made, 500)
    stream.on_end(OUTCOME)
    assert len(filter_.index) == before
    assert at(filter_.pool, 3).in_flight == 1


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ([address(1).endpoint], address(1).endpoint),
        (f" {address(1).endpoint} , 10.9.9.9:1", address(1).endpoint),
        ([], None),
        ("", None),
        (["10.9.9.9:1"], None),
        (7, None),
    ],
)
def test_the_subset_hint_is_obeyed(hint: object, expected: str | None) -> None:
    filter_ = picker(ReplicaMetrics(), ReplicaMetrics(waiting=4))
    made = exchange(PROMPT, metadata={SUBSET_NAMESPACE: {SUBSET: hint}})
    _, answer = ask(filter_, made)
    assert made.request_changes.set.get(DESTINATION) == expected
    if expected is None:
        assert answer is not None
        assert answer.status == 503
        assert orjson.loads(answer.body)["error"]["code"] == "no_ready_replica"


def test_no_replica_is_503() -> None:
    _, answer = ask(picker(), exchange(PROMPT))
    assert answer is not None
    assert answer.status == 503
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    error = orjson.loads(answer.body)["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "no_ready_replica", None)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({"x-gateway-inference-objective": "chat"}, None),
        ({"x-gateway-inference-objective": "unknown"}, None),
        ({"x-gateway-inference-objective": "batch"}, 429),
        ({"x-llm-d-inference-objective": "batch"}, 429),
        ({"x-llm-d-inference-objective": "chat", "x-gateway-inference-objective": "batch"}, None),
    ],
)
def test_objectives_decide_what_is_shed(headers: Mapping[str, str], status: int | None) -> None:
    _, answer = ask(picker(ReplicaMetrics(waiting=9)), exchange(PROMPT, headers))
    assert (answer.status if answer else None) == status
    if answer:
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
        assert orjson.loads(answer.body)["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize(
    ("headers", "adapter"),
    [
        ({"x-gateway-model-name": "lora", "x-gateway-base-model-name": "base"}, "lora"),
        ({"x-gateway-model-name": "base"}, ""),
        ({"x-gateway-model-name": "base", "x-gateway-base-model-name": "base"}, ""),
        ({}, "m"),
    ],
)
def test_the_adapter_is_what_the_body_router_says(headers: Mapping[str, str], adapter: str) -> None:
    assert picker().read(exchange(PROMPT, headers)).adapter == adapter


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"x"', b"[" * 5000, b"\xff\xfe", b'{"model": 7}'])
def test_a_body_without_a_prompt_gets_a_replica_all_the_same(body: bytes) -> None:
    made = exchange(body)
    _, answer = ask(picker(ReplicaMetrics()), made)
    assert answer is None
    assert made.request_changes.set[DESTINATION] == address(0).endpoint


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.binary(max_size=50)
    | st.dictionaries(
        st.sampled_from(["model", "messages", "prompt", "input", "tools", "instructions", "cache_salt"]), values
    )
)
def test_any_body_gets_a_replica(body: bytes | dict[str, object]) -> None:
    made = exchange(body)
    _, answer = ask(picker(ReplicaMetrics()), made)
    assert answer is None
    assert DESTINATION in made.request_changes.set
