import random
import subprocess
import sys
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.picker.prefix import PrefixIndex, block_hashes, slots_of
from services.picker.prompt import prompt_bytes, seed


def matches(index: PrefixIndex, hashes: list[int]) -> dict[int, int]:
    return {slot: length for mask, length in index.match(hashes) for slot in slots_of(mask)}


def index_of(*slots: int, capacity: int = 100, max_entries: int = 10_000) -> PrefixIndex:
    index = PrefixIndex(capacity, max_entries)
    for slot in slots:
        index.open(slot)
    return index


def test_hashes_are_equal_exactly_as_far_as_texts_are() -> None:
    one, two = b"a" * 256 + b"b" * 256 + b"c" * 10, b"a" * 256 + b"x" * 256 + b"c" * 10
    first, second = block_hashes(one, b"m", 256), block_hashes(two, b"m", 256)
    assert len(first) == 3
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[2] != second[2], "the same block after another one is another block"
    assert block_hashes(one, b"other", 256)[0] != first[0]
    assert block_hashes(one, b"m", 256, max_blocks=2) == first[:2]
    assert block_hashes(b"", b"m", 256) == []


def test_the_longest_match_of_each_replica_is_found() -> None:
    index = index_of(0, 1, 2, 3)
    index.record(0, [1, 2, 3, 4])
    index.record(1, [1, 2])
    index.record(2, [1, 2, 3, 9])
    assert matches(index, [1, 2, 3, 4]) == {0: 4, 1: 2, 2: 3}
    assert matches(index, [2, 3]) == {0: 2, 1: 1, 2: 2}
    assert matches(index, [7]) == {}
    assert matches(index, []) == {}


def test_a_hole_ends_the_match() -> None:
    index = index_of(0)
    index.record(0, [1, 3])
    assert matches(index, [1, 2, 3]) == {0: 1}


def test_the_end_of_a_prefix_is_forgotten_before_its_beginning() -> None:
    index = index_of(0, capacity=4)
    index.record(0, [1, 2, 3, 4])
    index.record(0, [5])
    assert matches(index, [1, 2, 3, 4]) == {0: 3}
    assert index.size(0) == 4


def test_a_prompt_longer_than_the_capacity_keeps_its_beginning() -> None:
    index = index_of(0, capacity=3)
    index.record(0, list(range(10)))
    assert matches(index, list(range(10))) == {0: 3}


def test_what_is_used_stays() -> None:
    index = index_of(0, capacity=3)
    index.record(0, [1])
    index.record(0, [2])
    index.record(0, [3])
    index.record(0, [1])
    index.record(0, [4])
    assert matches(index, [1]) == {0: 1}
    assert matches(index, [2]) == {}


def test_a_pick_is_taken_back_without_harm_to_what_was_there() -> None:
    index = index_of(0, 1)
    index.record(0, [1, 2])
    added = index.record(0, [1, 2, 3])
    assert added == [3]
    index.forget(0, added)
    assert matches(index, [1, 2, 3]) == {0: 2}
    index.forget(5, [1])
    assert index.record(5, [1]) == []


def test_replicas_that_went_or_restarted_leave_nothing() -> None:
    index = index_of(0, 1)
    index.record(0, [1, 2])
    index.record(1, [2, 3])
    index.clear(1)
    assert matches(index, [2]) == {0: 1}
    index.drop(0)
    assert len(index) == 0
    index.open(0)
    assert matches(index, [1]) == {}


def test_capacity_follows_the_cache_of_the_replica() -> None:
    index = index_of(0, capacity=100)
    index.record(0, list(range(50)))
    index.limit(0, 10)
    assert index.size(0) <= 10
    index.limit(0, 1_000_000)
    index.record(0, list(range(200)))
    assert index.size(0) <= 100


def test_many_replicas_share_the_total() -> None:
    index = index_of(*range(10), capacity=100, max_entries=200)
    for slot in range(10):
        index.record(slot, list(range(slot * 1000, slot * 1000 + 100)))
    assert len(index) <= 200
    for slot in range(10, 40):
        index.open(slot)
    assert len(index) <= 200


class Plain:
    """The index as one would write it down: an ordered set for each replica."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: dict[int, OrderedDict[int, None]] = {}

    def record(self, slot: int, hashes: list[int]) -> None:
        held = self.held[slot]
        for block in reversed(hashes):
            held[block] = None
            held.move_to_end(block)
        while len(held) > self.capacity:
            held.popitem(last=False)

    def match(self, hashes: list[int]) -> dict[int, int]:
        found = {}
        for slot, held in self.held.items():
            length = 0
            while length < len(hashes) and hashes[length] in held:
                length += 1
            if length:
                found[slot] = length
        return found


steps = st.lists(
    st.tuples(
        st.sampled_from(["record", "record", "record", "match", "drop", "forget", "clear"]),
        st.integers(0, 4),
        st.lists(st.integers(1, 12), max_size=6, unique=True),
    ),
    max_size=40,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(steps, st.integers(1, 20))
def test_the_index_agrees_with_a_plain_one(steps: list[tuple[str, int, list[int]]], capacity: int) -> None:
    index, plain = PrefixIndex(capacity, 10_000), Plain(capacity)
    for action, slot, hashes in steps:
        if slot not in plain.held:
            index.open(slot)
            plain.held[slot] = OrderedDict()
        if action == "record":
            index.record(slot, hashes)
            plain.record(slot, hashes)
        elif action == "drop":
            index.drop(slot)
            del plain.held[slot]
        elif action == "clear":
            index.clear(slot)
            plain.held[slot].clear()
        elif action == "forget":
            index.forget(slot, hashes)
            for block in hashes:
                plain.held[slot].pop(block, None)
        assert matches(index, hashes) == plain.match(hashes)
        assert len(index) == len({block for held in plain.held.values() for block in held})


def test_slots_of_a_mask() -> None:
    assert list(slots_of(0)) == []
    assert list(slots_of(1 << 999 | 0b101)) == [0, 2, 999]


def test_an_entry_takes_about_120_bytes() -> None:
    code = (
        "import tracemalloc; from services.picker.prefix import *\n"
        "index = PrefixIndex(31_250)\n"
        "for slot in range(4): index.open(slot)\n"
        "tracemalloc.start()\n"
        "for slot in range(4): index.record(slot, block_hashes(bytes(31_250 * 16), b'%d' % slot, 16))\n"
        "print(tracemalloc.get_traced_memory()[0] / len(index))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert 60 < float(result.stdout) < 180


def test_prompts_of_all_apis() -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    assert prompt_bytes(chat) == b'[{"role":"user","content":"hi"}]'
    assert prompt_bytes({**chat, "tools": [{"type": "function"}]}).startswith(b'[{"type":"function"}]\x1e[')
    assert prompt_bytes({"prompt": "h\u00e9"}) == "h\u00e9".encode()
    assert prompt_bytes({"prompt": [1, 2, 3]}) == b"[1,2,3]"
    assert prompt_bytes({"input": ["a", "b"]}) == b'["a","b"]'
    assert prompt_bytes({"instructions": "be kind", "input": "hi"}) == b"be kind\x1ehi"
    assert prompt_bytes({"messages": [], "prompt": ""}) == prompt_bytes({}) == b""


def test_a_prompt_that_cannot_be_written_is_none() -> None:
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    assert prompt_bytes({"messages": deep}) == b""


def test_salt_and_model_keep_prefixes_apart() -> None:
    assert len({seed("a", {}), seed("b", {}), seed("a", {"cache_salt": "x"})}) == 3
    assert seed("a", {"cache_salt": 5}) == seed("a", {})


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_a_turn_shares_all_but_the_last_block_with_the_turn_before(turns: int) -> None:
    rng = random.Random(turns)
    messages = [{"role": "user", "content": rng.randbytes(900).hex()} for _ in range(turns)]
    longer = [*messages, {"role": "assistant", "content": rng.randbytes(900).hex()}]
    before = block_hashes(prompt_bytes({"messages": messages}), b"m", 256)
    after = block_hashes(prompt_bytes({"messages": longer}), b"m", 256)
    assert after[: len(before) - 1] == before[:-1]
