"""The queueing model, in virtual time: 1,000 prompt tokens per second, 10 ms per decode step."""

import random

import pytest

from services.modelserver.sequence import Status
from tests.unit.modelserver.virtual import Run, start, text


def test_a_lone_request_is_prefilled_then_decodes_a_token_per_step() -> None:
    run = start()
    one = run.add(text(100), 5)
    run.finish()
    assert run.tokens[one] == pytest.approx([0.1, 0.11, 0.12, 0.13, 0.14])
    assert one.status is Status.FINISHED
    stats = run.engine.stats
    assert stats.prompt_tokens == 100
    assert stats.generation_tokens == 5
    assert stats.time_to_first_token.total == pytest.approx(0.1)
    assert stats.e2e_latency.total == pytest.approx(0.14)
    assert stats.inter_token_latency.number == 4
    assert stats.finished["length"] == 1


def test_requests_that_arrive_together_share_a_step() -> None:
    run = start()
    both = [run.add(text(100, salt), 2) for salt in "ab"]
    run.finish()
    assert [run.first(s) for s in both] == pytest.approx([0.2, 0.2])
    assert run.end(both[0]) == pytest.approx(0.21)


def test_batch_slots_make_the_rest_wait() -> None:
    run = start(max_num_seqs=2)
    all_of_them = [run.add(text(10, salt), 3) for salt in "abc"]
    run.until(0.03)
    assert (len(run.engine.running), len(run.engine.waiting)) == (2, 1)
    assert run.engine.waiting_by_reason == (1, 0)
    run.finish()
    third = all_of_them[2]
    # The first two end at 0.02 + 2 * 0.01; only then is the third prefilled.
    assert run.first(third) == pytest.approx(0.04 + 0.01)
    assert run.engine.stats.queue_time.total == pytest.approx(0.04)


def test_a_prefill_holds_up_those_who_decode() -> None:
    run = start()
    early = run.add(text(10), 4)
    run.add(text(500, "b"), 1, at=0.015)
    run.finish()
    gaps = [b - a for a, b in zip(run.tokens[early], run.tokens[early][1:], strict=False)]
    assert gaps == pytest.approx([0.01, 0.51, 0.01])


def test_long_prompts_are_prefilled_in_chunks_of_the_token_budget() -> None:
    run = start(max_num_batched_tokens=100)
    run.add(text(250), 1)
    run.until(0.15)
    assert run.engine.running[0].computed == 100
    run.finish()
    assert run.engine.stats.steps == 3
    assert run.engine.stats.time_to_first_token.total == pytest.approx(0.25)


def test_each_further_sequence_slows_a_decode_step() -> None:
    run = start(batch_slowdown=0.5)
    one = run.add(text(10), 3)
    run.add(text(10, "b"), 3)
    run.finish()
    assert run.tokens[one] == pytest.approx([0.02, 0.035, 0.05])


def test_time_scale_stretches_everything() -> None:
    run = start(time_scale=2.0)
    one = run.add(text(100), 2)
    run.finish()
    assert run.tokens[one] == pytest.approx([0.2, 0.22])


def test_infinite_speed_takes_no_time_and_few_steps() -> None:
    run = start(prefill_tps=float("inf"), decode_tps=float("inf"), num_blocks=2001, max_model_len=20000)
    one = run.add(text(1000), 10000)
    polls = 0
    while run.engine.next_event() is not None:
        run.engine.poll(0.0)
        polls += 1
    assert polls == 1
    assert len(run.tokens[one]) == 10000
    assert run.now == 0.0
    assert run.engine.stats.steps == 10000
    assert run.engine.pool.free == run.engine.pool.usable


def test_a_repeated_prompt_skips_the_prefill_of_its_full_blocks() -> None:
    run = start()
    run.add(text(165), 1)
    again = run.add(text(165), 1, at=1.0)
    run.finish()
    assert again.cached_tokens == 160
    assert run.first(again) == pytest.approx(1.005)
    assert (run.engine.stats.prefix_queries, run.engine.stats.prefix_hits) == (330, 160)


def test_the_last_token_of_a_fully_cached_prompt_is_computed_all_the_same() -> None:
    run = start()
    run.add(text(160), 1)
    again = run.add(text(160), 1, at=1.0)
    run.finish()
    assert again.cached_tokens == 144


def test_only_the_common_beginning_hits() -> None:
    run = start()
    run.add(text(64) + text(64, "b"), 1)
    other = run.add(text(64) + text(64, "c"), 1, at=1.0)
    shifted = run.add(text(1, "d") + text(128), 1, at=2.0)
    run.finish()
    assert (other.cached_tokens, shifted.cached_tokens) == (64, 0)


def test_the_next_turn_finds_the_answer_of_the_turn_before() -> None:
    run = start()
    answer = text(33, "z")
    run.add(text(31), 0, answer=answer)
    turn = run.add(text(31) + answer + text(20, "q"), 1, at=1.0)
    run.finish()
    # 31 + 33 tokens fill four blocks; the last answered token was never computed.
    assert turn.cached_tokens == 48


def test_adapters_and_salts_do_not_share_prefixes() -> None:
    run = start(max_loras=2)
    run.add(text(64), 1)
    with_adapter = run.add(text(64), 1, at=1.0, adapter="x")
    same_adapter = run.add(text(64), 1, at=2.0, adapter="x")
    run.finish()
    assert (with_adapter.cached_tokens, same_adapter.cached_tokens) == (0, 48)


def test_without_prefix_caching_nothing_hits_and_nothing_is_asked() -> None:
    run = start(prefix_caching=False)
    run.add(text(64), 1)
    again = run.add(text(64), 1, at=1.0)
    run.finish()
    assert again.cached_tokens == 0
    assert run.engine.stats.prefix_queries == 0


def test_the_least_recently_used_prefix_is_forgotten_first() -> None:
    run = start(num_blocks=11, max_model_len=128)  # ten blocks of 16
    for moment, salt in enumerate("aba"):
        run.add(text(64, salt), 1, at=float(moment))
    run.add(text(64, "c"), 1, at=3.0)  # takes blocks: two fresh ones, then b's, which was used before a
    again_a = run.add(text(64, "a"), 1, at=4.0)
    run.finish()
    assert again_a.cached_tokens == 48
    again_b = run.add(text(64, "b"), 1, at=5.0)
    run.finish()
    assert again_b.cached_tokens < 48


def test_a_request_without_blocks_waits() -> None:
    run = start(num_blocks=11, max_model_len=160)
    first = run.add(text(140), 10)
    second = run.add(text(140, "b"), 1)
    run.until(0.15)
    assert run.engine.pool.usage == pytest.approx(0.9)
    assert second.status is Status.WAITING
    run.finish()
    assert run.first(second) > run.end(first)
    assert run.engine.pool.usage == 0.0


def test_the_newest_is_preempted_when_blocks_run_out_and_comes_back() -> None:
    run = start(num_blocks=11, max_model_len=160, prefix_caching=False)
    old = run.add(text(60), 60)
    new = run.add(text(60, "b"), 60)
    run.finish()
    assert (old.preemptions, new.preemptions) == (0, 1)
    assert run.engine.stats.preemptions == 1
    assert len(run.tokens[old]) == len(run.tokens[new]) == 60
    # Prompt and generated tokens are computed again, all in one go: a gap in the middle of the answer.
    gaps = [b - a for a, b in zip(run.tokens[new], run.tokens[new][1:], strict=False)]
    assert max(gaps) > 0.1
    assert run.engine.stats.prompt_tokens == 120


def test_more_adapters_than_slots_defer_requests_without_blocking_others() -> None:
    run = start(max_loras=1)
    x = run.add(text(10, "x"), 5, adapter="x")
    y = run.add(text(10, "y"), 1, adapter="y")
    base = run.add(text(10, "b"), 1)
    run.until(0.025)
    assert run.engine.waiting_by_reason == (0, 1)
    run.finish()
    assert run.first(base) < run.end(x) < run.first(y)
    assert list(run.engine.resident) == ["y"]


def test_loading_an_adapter_takes_time_once_while_it_stays() -> None:
    run = start(max_loras=2, lora_load_s=1.0)
    first = run.add(text(10, "a"), 1, adapter="x")
    second = run.add(text(10, "b"), 1, at=5.0, adapter="x")
    run.finish()
    assert run.first(first) == pytest.approx(1.01)
    assert run.first(second) == pytest.approx(5.01)
    run.add(text(10, "c"), 1, at=6.0, adapter="y")
    run.add(text(10, "d"), 1, at=8.0, adapter="z")
    run.finish()
    assert list(run.engine.resident) == ["y", "z"]


def test_lora_info_keeps_old_sets_and_the_newest_tells_who_is_active() -> None:
    run = start(max_loras=2)
    run.add(text(10, "a"), 3, adapter="x")
    run.add(text(10, "b"), 1, adapter="y")
    assert run.engine.stats.lora_info == {}
    run.finish()
    info = run.engine.stats.lora_info
    assert set(info) == {"x", ""}  # y ended with the first step, x with the last one
    assert max(info, key=info.__getitem__) == ""


def test_abort_frees_slot_and_blocks_at_once() -> None:
    run = start(max_num_seqs=1)
    running = run.add(text(100), 100, adapter=None)
    waiting = run.add(text(100, "b"), 1)
    run.until(0.115)
    run.engine.abort(running)
    assert run.engine.pool.free == run.engine.pool.usable
    assert running.status is Status.ABORTED
    got = len(run.tokens[running])
    run.finish()
    assert len(run.tokens[running]) == got
    assert run.first(waiting) == pytest.approx(0.12 + 0.1)
    run.engine.abort(running)
    assert run.engine.stats.aborted == 1


def test_abort_of_a_waiting_request() -> None:
    run = start(max_num_seqs=1)
    run.add(text(10), 3)
    waiting = run.add(text(10, "b"), 1)
    run.until(0.015)
    run.engine.abort(waiting)
    run.finish()
    assert run.tokens[waiting] == []
    assert run.engine.stats.finished["length"] == 1


def test_aborted_requests_count_as_in_vllm() -> None:
    """Prompt tokens count, per-request metrics and the `abort` reason do not (vLLM issue 55634)."""
    run = start()
    one = run.add(text(100), 100)
    run.until(0.2)
    run.engine.abort(one)
    run.finish()
    stats = run.engine.stats
    assert stats.prompt_tokens == 100
    assert stats.request_prompt_tokens.number == 0
    assert sum(stats.finished.values()) == 0


def test_pooling_is_a_prefill_and_generates_nothing() -> None:
    run = start()
    one = run.add(text(100), 0, pooling=True)
    run.finish()
    assert run.tokens[one] == pytest.approx([0.1])
    assert run.engine.stats.generation_tokens == 0


def test_an_idle_engine_asks_for_nothing() -> None:
    run = start()
    assert run.engine.next_event() is None
    run.add(text(10), 1)
    run.finish()
    assert run.engine.next_event() is None


@pytest.mark.parametrize("seed", range(12))
def test_random_traffic_ends_and_leaves_nothing_behind(seed: int) -> None:
    """Few blocks, few slots, adapters, aborts: every request ends, in order of time, and all blocks come back."""
    source = random.Random(seed)
    run = start(num_blocks=30, max_model_len=400, max_num_seqs=4, max_num_batched_tokens=64, max_loras=2)
    sequences = []
    for _ in range(60):
        at = run.now + source.random() * 0.2
        salt = source.choice("abc")
        sequences.append(run.add(text(source.randint(1, 200), salt), source.randint(1, 200), at, _adapter(source)))
        _check_limits(run)
        if source.random() < 0.2:
            run.engine.abort(source.choice(sequences))
    run.finish()
    _check_limits(run)
    assert run.engine.pool.free == run.engine.pool.usable
    for sequence in sequences:
        times = run.tokens[sequence]
        assert times == sorted(times)
        assert sequence.status is Status.ABORTED or len(times) == sequence.output_tokens


def _adapter(source: random.Random) -> str | None:
    return source.choice([None, "x", "y", "z"])


def _check_limits(run: Run) -> None:
    engine = run.engine
    assert len(engine.running) <= 4
    assert len({s.adapter for s in engine.running if s.adapter}) <= 2
    assert len(engine.resident) <= 2
    assert 0 <= engine.pool.usage <= 1
    held = {block for s in engine.running for block in s.blocks}
    assert len(held) == engine.pool.usable - engine.pool.free
