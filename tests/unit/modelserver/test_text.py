"""Blocks, tokens and made-up text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.modelserver import tokens
from services.modelserver.blocks import BlockPool, chain_hashes
from services.modelserver.planning import Sampling, plan
from services.modelserver.settings import Settings

SETTINGS = Settings(model="m", served_names=("m",))


def sampling(**changes: object) -> Sampling:
    values: dict[str, object] = {
        "n": 1,
        "max_tokens": 16,
        "min_tokens": 0,
        "stop": (),
        "keep_stop": False,
        "ignore_eos": False,
        "seed": 0,
        "logprobs": None,
    }
    return Sampling(**{**values, **changes})  # type: ignore[arg-type]


def test_hashes_are_chained_and_cover_full_blocks_only() -> None:
    data = bytes(range(256))
    hashes = chain_hashes(data, 16)
    assert len(hashes) == 4
    assert chain_hashes(data[:200], 16) == hashes[:3]
    changed = b"\xff" + data[1:]
    assert not set(chain_hashes(changed, 16)) & set(hashes)
    assert not set(chain_hashes(data, 16, "adapter")) & set(hashes)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5), st.booleans()), max_size=40))
def test_the_pool_never_loses_or_doubles_a_block(steps: list[tuple[int, int, bool]]) -> None:
    pool, held = BlockPool(12), []
    for start, size, give_back in steps:
        if give_back and held:
            pool.release(held.pop(0))
            continue
        hashes = list(range(start, start + size))
        shared = pool.match(hashes, size)
        blocks = pool.reserve(shared, size - len(shared))
        if blocks is None:
            continue
        for block, value in zip(blocks, hashes, strict=True):
            pool.remember(block, value)
        assert len(set(blocks)) == size
        held.append(blocks)
    assert len({block for blocks in held for block in blocks}) == pool.usable - pool.free
    for blocks in held:
        pool.release(blocks)
    assert pool.free == pool.usable == 11
    assert pool.forget_all()
    assert pool.cached == 0


def test_a_pool_in_use_keeps_its_cache() -> None:
    pool = BlockPool(4)
    blocks = pool.reserve([], 1)
    assert blocks is not None
    pool.remember(blocks[0], 7)
    assert not pool.forget_all()
    assert pool.match([7], 1) == blocks


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_token_ids_give_the_text_back(text: str) -> None:
    data = tokens.encode_text(text)
    ids = tokens.to_ids(data)
    assert len(ids) == tokens.count(data)
    assert tokens.text_of_ids(ids) == text


def test_a_conversation_begins_with_the_tokens_of_its_earlier_turn() -> None:
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How are you?"},
    ]
    before = tokens.encode_chat(messages)
    answer = "".join(plan(sampling(), SETTINGS, "m", before, 0).pieces)
    after = tokens.encode_chat(
        [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": "Why?"}]
    )
    assert after.startswith(before + answer.encode())
    assert len(before) % 4 == 0


def test_about_four_characters_are_a_token() -> None:
    assert tokens.count(tokens.encode_text("x" * 4000)) == 1000


def test_media_count_and_differ() -> None:
    def chat(url: str) -> bytes:
        part = {"type": "image_url", "image_url": {"url": url}}
        return tokens.encode_chat([{"role": "user", "content": [{"type": "text", "text": "look"}, part]}])

    assert chat("http://a/1") != chat("http://a/2")
    assert tokens.count(chat("http://a/1")) == tokens.count(chat("http://a/2" * 100))


def test_text_depends_on_seed_model_prompt_and_choice_only() -> None:
    base = plan(sampling(), SETTINGS, "m", b"hello", 0)
    assert plan(sampling(), SETTINGS, "m", b"hello", 0) == base
    others = [
        plan(sampling(seed=1), SETTINGS, "m", b"hello", 0),
        plan(sampling(), SETTINGS, "adapter", b"hello", 0),
        plan(sampling(), SETTINGS, "m", b"hullo", 0),
        plan(sampling(), SETTINGS, "m", b"hello", 1),
        plan(sampling(), Settings(model="m", served_names=("m",), seed=1), "m", b"hello", 0),
    ]
    assert len({"".join(p.pieces) for p in [base, *others]}) == 6
    longer = plan(sampling(max_tokens=20), SETTINGS, "m", b"hello", 0)
    assert longer.pieces[:16] == base.pieces


def test_endings() -> None:
    assert plan(sampling(max_tokens=5), SETTINGS, "m", b"p", 0).finish_reason == "length"
    natural = plan(sampling(max_tokens=5000), SETTINGS, "m", b"p", 0)
    assert natural.finish_reason == "stop"
    assert 32 <= len(natural.pieces) <= 97
    forced = plan(sampling(max_tokens=500, ignore_eos=True), SETTINGS, "m", b"p", 0)
    assert (len(forced.pieces), forced.finish_reason) == (500, "length")
    least = plan(sampling(max_tokens=5000, min_tokens=400), SETTINGS, "m", b"p", 0)
    assert len(least.pieces) == 400


def test_stop_strings_cut_the_text_and_the_tokens() -> None:
    full = "".join(plan(sampling(), SETTINGS, "m", b"p", 0).pieces)
    stop = full[13:19]
    cut = plan(sampling(stop=("never there", stop)), SETTINGS, "m", b"p", 0)
    assert "".join(cut.pieces) == full[: full.index(stop)]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert len(cut.data) == len(cut.pieces) * 4 == 20
    kept = plan(sampling(stop=(stop,), keep_stop=True), SETTINGS, "m", b"p", 0)
    assert "".join(kept.pieces).endswith(stop)


def test_logprobs_fall_and_begin_with_the_chosen_token() -> None:
    planned = plan(sampling(logprobs=3), SETTINGS, "m", b"p", 0)
    assert planned.logprobs is not None
    for piece, pairs in zip(planned.pieces, planned.logprobs, strict=True):
        assert [pairs[0], *pairs[2:]] == [*pairs[1:]]
        assert pairs[0][0] == piece
        values = [value for _, value in pairs[1:]]
        assert values == sorted(values, reverse=True)
        assert values[0] <= 0


def test_embeddings_have_length_one() -> None:
    vector = tokens.embedding(5, 64)
    assert abs(sum(v * v for v in vector) - 1) < 1e-9
    assert vector == tokens.embedding(5, 64) != tokens.embedding(6, 64)
