"""The policy `cache`: what is kept, for whom, for how long, and what clients are told."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.apimgmt.call import MAX_KEPT, Credential
from services.apimgmt.response_cache import ENTRY_BYTES, METRICS, Entry, ResponseCache, name_of
from services.extproc.api import Ending, Outcome
from tests.unit.apimgmt.cache.calls import ASKED, CHAT, EVENTS, JSON, World


def test_second_request_gets_the_first_answer() -> None:
    world = World()
    policy = world.policy(ttlSeconds=60)
    first = world.call()
    assert world.ask(policy, first) is None
    assert first.headers["cache-status"] == "penstock; fwd=uri-miss; stored"
    world.now += 20
    reply = world.ask(policy, world.call())
    assert reply is not None
    assert (reply.status, reply.body) == (200, JSON)
    assert reply.headers == {"content-type": "application/json", "cache-status": "penstock; hit; ttl=40"}


def test_entries_expire() -> None:
    world = World()
    policy = world.policy(ttlSeconds=60)
    world.ask(policy, world.call())
    world.now += 60
    assert world.ask(policy, world.call()) is None


def test_stream_is_replayed_as_stream_and_apart_from_json() -> None:
    world = World()
    policy = world.policy()
    streamed = {**ASKED, "stream": True}
    world.ask(policy, world.call(streamed))
    assert world.ask(policy, world.call()) is None, "a JSON answer cannot come from a stream"
    reply = world.ask(policy, world.call(streamed))
    assert reply is not None
    assert reply.body == EVENTS
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_usage_on_a_stream_comes_only_where_the_client_asked() -> None:
    world = World()
    policy = world.policy()
    body = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    ours = world.call(body)
    ours.strip_usage = True  # the option was added here, and the client's answer has none
    world.ask(policy, ours)
    assert world.ask(policy, world.call(body)) is None
    again = world.call(body)
    again.strip_usage = True
    assert world.ask(policy, again) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1}, {"temperature": None}, {"temperature": False}, {"n": 2}, {"best_of": 3},
        {"tools": [{"type": "function"}]}, {"functions": []}, {"store": True}, {"background": True},
    ],
)  # fmt: skip
def test_requests_that_do_not_repeat_are_passed_by(change: dict[str, Any]) -> None:
    world = World()
    policy = world.policy()
    call = world.call({**ASKED, **change})
    assert world.ask(policy, call) is None
    assert call.headers["cache-status"] == "penstock; fwd=bypass"
    assert world.ask(policy, world.call({**ASKED, **change})) is None


@pytest.mark.parametrize(
    ("chosen", "change"),
    [
        ({"missingTemperature": True}, {"temperature": None}), ({"requests": "all"}, {"temperature": 1, "n": 2}),
        ({"allowTools": True}, {"tools": [{"type": "function"}]}), ({}, {"n": 1, "temperature": 0.0}),
    ],
)  # fmt: skip
def test_settings_widen_what_is_kept(chosen: dict[str, Any], change: dict[str, Any]) -> None:
    world = World()
    body = {**ASKED, **change}
    assert world.hits(world.policy(**chosen), world.call(body), world.call(body))


@pytest.mark.parametrize("operation", ["/v1/embeddings", "/v1/rerank", "/v1/score"])
def test_vectors_and_scores_repeat_without_a_temperature(operation: str) -> None:
    world = World()
    body = {"model": "m", "input": "x"}
    assert world.hits(world.policy(), world.call(body, operation=operation), world.call(body, operation=operation))


def test_unknown_operations_are_passed_by() -> None:
    world = World()
    assert not world.hits(world.policy(), world.call(operation="/v1/other"), world.call(operation="/v1/other"))


@pytest.mark.parametrize(
    ("scope", "other", "shared"),
    [
        ("key", {"key": "k2"}, False), ("key", {}, True),
        ("user", {"key": "k2"}, True), ("user", {"user": "bob"}, False),
        ("team", {"user": "bob", "key": "k2"}, True), ("team", {"team": "blue"}, False),
        ("organization", {"team": "blue", "user": "bob", "key": "k2"}, True),
        ("organization", {"organization": "x"}, False),
        ("product", {"organization": "x", "team": "t", "user": "u", "key": "k2"}, True),
    ],
)  # fmt: skip
def test_scope_says_who_shares(scope: str, other: dict[str, Any], shared: bool) -> None:
    world = World()
    assert world.hits(world.policy(scope=scope), world.call(), world.call(**other)) is shared


def test_default_scope_is_the_key_and_tokens_share_only_with_their_own_app() -> None:
    world = World()
    policy = world.policy()
    token = {"key": "", "credential": Credential.JWT}
    assert not world.hits(policy, world.call(), world.call(key="k2"))
    assert not world.hits(policy, world.call(**token), world.call(**token, app="other"))
    assert world.ask(policy, world.call(**token)) is not None


@pytest.mark.parametrize("scope", ["user", "team"])
def test_an_empty_name_is_nobodys(scope: str) -> None:
    world = World()
    nameless = {"team": "", "user": ""}
    assert not world.hits(world.policy(scope=scope), world.call(**nameless), world.call(**nameless, key="k2"))


def test_products_share_only_where_allowed() -> None:
    world = World()
    assert not world.hits(world.policy(), world.call(), world.call(product="silver"))
    open_one = world.policy(shareAcrossProducts=True)
    assert world.hits(open_one, world.call(), world.call(product="silver"))
    with pytest.raises(ValidationError, match="share with everybody"):
        world.policy(shareAcrossProducts=True, scope="product")


def test_callers_without_identity_or_product_are_passed_by() -> None:
    world = World()
    policy = world.policy(scope="product")
    unknown = world.call()
    unknown.caller = None
    assert world.ask(policy, unknown) is None
    assert unknown.headers["cache-status"] == "penstock; fwd=bypass"


def test_no_store_neither_reads_nor_keeps() -> None:
    world = World()
    policy = world.policy()
    call = world.call(headers={"cache-control": "No-Store"})
    assert world.ask(policy, call) is None
    assert call.headers["cache-status"] == "penstock; fwd=request"
    assert world.ask(policy, world.call()) is None, "nothing was kept"
    assert world.ask(policy, world.call(headers={"cache-control": "no-store"})) is None, "nothing is read"


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "max-age=5, x"])
def test_fresh_answer_is_asked_for_and_replaces_the_old(directive: str) -> None:
    world = World()
    policy = world.policy()
    world.ask(policy, world.call())
    world.now += 6
    call = world.call(headers={"cache-control": directive})
    assert world.ask(policy, call, b'{"id":"new"}') is None
    assert call.headers["cache-status"] == "penstock; fwd=request; stored"
    reply = world.ask(policy, world.call())
    assert reply is not None
    assert reply.body == b'{"id":"new"}'


@pytest.mark.parametrize(
    ("answer", "outcome", "sent"),
    [
        (None, Outcome(Ending.ABORTED, 200, 1, 1, 1), {}), (None, Outcome(Ending.ERROR, 200, 1, 1, 1), {}),
        (b"", None, {}), (b'{"id": 1', None, {}), (None, None, {":status": "500"}), (None, None, {":status": "206"}),
        (None, None, {"content-type": "text/html"}), (None, None, {"content-encoding": "gzip"}),
        (None, None, {"cache-control": "private, no-store"}),
    ],
)  # fmt: skip
def test_only_whole_good_answers_are_kept(answer: bytes | None, outcome: Outcome | None, sent: dict[str, str]) -> None:
    world = World()
    policy = world.policy()
    call = world.call()
    world.ask(policy, call, answer, outcome or Outcome(Ending.COMPLETE, 200, 1, 1, 1), **sent)
    if sent:
        assert call.headers["cache-status"] == "penstock; fwd=uri-miss"
    assert world.ask(policy, world.call()) is None


def test_announced_length_beyond_what_is_kept_is_not_called_stored() -> None:
    world = World()
    call = world.call()
    world.ask(world.policy(), call, b"", **{"content-length": str(MAX_KEPT + 1)})
    assert call.headers["cache-status"] == "penstock; fwd=uri-miss"


@pytest.mark.parametrize(
    "events",
    [
        b'data: {"id":1}\n\n',
        b'data: {"id":1}\n\ndata: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n',
        b'data: {"object":"error","message":"x"}\n\ndata: [DONE]\n\n',
    ],
)
def test_cut_or_failed_streams_are_not_kept(events: bytes) -> None:
    world = World()
    policy = world.policy()
    body = {**ASKED, "stream": True}
    world.ask(policy, world.call(body), events)
    assert world.ask(policy, world.call(body)) is None


def test_shadow_counts_hits_and_answers_nothing_to_others() -> None:
    world = World()
    policy = world.policy()
    for expected in ("miss", "hit"):
        before = METRICS.requests.counts["gold", expected, "true"]
        call = world.call()
        call.enter(shadow=True)
        world.ask(policy, call)
        assert METRICS.requests.counts["gold", expected, "true"] == before + 1
        assert (call.headers, call.keep_response, call.response) == ({}, False, b"")
    assert world.ask(policy, world.call()) is None, "a shadow's entry is no answer"


def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    cache = ResponseCache(max_bytes=3 * (ENTRY_BYTES + 10), max_entries=3)
    for name in b"abc":
        cache.put(bytes([name]), Entry(b"0123456789", "", 0, 10))
    assert cache.get(b"a", 1) is not None
    cache.put(b"d", Entry(b"0123456789", "", 0, 10))
    assert [cache.get(bytes([n]), 1) is not None for n in b"abcd"] == [True, False, True, True]
    cache.put(b"e", Entry(b"x" * 2000, "", 0, 10))
    assert cache.get(b"e", 1) is None, "bigger than all of the cache"
    assert (cache.bytes, len(cache), cache.evicted) == (3 * (ENTRY_BYTES + 10), 3, 1)
    cache.put(b"a", Entry(b"", "", 0, 10))
    assert cache.bytes == 3 * ENTRY_BYTES + 20
    assert cache.get(b"a", 10) is None
    assert len(cache) == 2


def test_policies_of_one_process_share_one_memory() -> None:
    world = World()
    small, big = world.policy(maxBytes=1024 * 1024), world.policy(maxBytes=8 * 1024 * 1024)
    assert world.hits(small, world.call(), world.call())
    assert world.ask(big, world.call()) is not None
    assert world.tools.extras["response-cache"].max_bytes == 8 * 1024 * 1024


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from([*ASKED, "n", "stream", "stream_options", "tools", "x"]), JSON_VALUES))
def test_any_body_is_kept_or_passed_by(body: dict[str, Any]) -> None:
    world = World()
    policy = world.policy(requests="all", allowTools=True)
    world.ask(policy, world.call(body))
    world.ask(policy, world.call(body))


def _turned(value: Any) -> Any:
    """The same value with the keys of all objects the other way round."""
    if isinstance(value, dict):
        return {key: _turned(item) for key, item in reversed(value.items())}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=5), JSON_VALUES)
def test_order_of_keys_and_ignored_fields_make_no_other_name(body: dict[str, Any], other: Any) -> None:
    ignored = dict.fromkeys(("user", "stream", "stream_options", "metadata", "safety_identifier"), other)
    assert name_of(["s"], CHAT, (), body) == name_of(["s"], CHAT, (), {**ignored, **_turned(body), **ignored})


def test_names_differ_where_the_meaning_does() -> None:
    names = {
        name_of(["s"], CHAT, (), {"a": 1}), name_of(["t"], CHAT, (), {"a": 1}), name_of(["s"], "/x", (), {"a": 1}),
        name_of(["s"], CHAT, (1,), {"a": 1}), name_of(["s"], CHAT, (), {"a": 2}), name_of(["s"], CHAT, (), {"a": [1]}),
        name_of(["s", "t"], CHAT, (), {"a": 1}), name_of(["s"], CHAT, (), {"a": 1, "b": None}),
    }  # fmt: skip
    assert len(names) == 8
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    assert name_of(["s"], CHAT, (), deep) is None


@pytest.mark.parametrize("field", ["metadata", "user", "safety_identifier", "prompt_cache_key"])
def test_what_an_answer_repeats_of_its_request_is_not_answered_to_another(field: str) -> None:
    """Answers of the Responses API have the request's metadata and user in them."""
    world = World()
    policy = world.policy(scope="organization")

    def asked(value: str) -> dict[str, Any]:
        value_ = {"ticket": value} if field == "metadata" else value
        return {"model": "m", "input": "hi", "temperature": 0, field: value_}

    made = [world.call(asked(value), operation="/v1/responses") for value in ("alice", "bob")]
    assert not world.hits(policy, *made)
    chats = [world.call({**ASKED, field: "x"}), world.call(ASKED)]
    assert world.hits(policy, *chats)
