"""What an engine does with a request: its place in the queue, its prompt, its tokens, its share of the cache."""

from collections import Counter
from dataclasses import replace
from statistics import fmean

import pytest

from tests.simulator.servings import (
    DRAFTING,
    FAST,
    MIXED,
    PAIR,
    TIGHT,
    loop,
    pace,
    trace,
)
from webapp.simulator.costs import Load, costs_of
from webapp.simulator.engine import Ask, Engine, Refused, Step
from webapp.simulator.virtual import Arrival, closed_loop, run_virtual, spread_out, uniform_lengths


def test_an_idle_engine_has_nothing_to_do() -> None:
    assert Engine(PAIR).step(5) is None


def test_a_step_begins_when_it_is_asked_for_or_when_the_last_one_ends() -> None:
    engine = Engine(PAIR)
    engine.submit(Ask(1, 100, 3))
    first, second = engine.step(1_000), engine.step(2_000)
    assert first is not None
    assert second is not None
    assert first.began_ns == 1_000
    assert second.began_ns == first.ends_ns


def test_a_prompt_costs_what_the_worked_example_says() -> None:
    # 70B fp8 on two H100, 5,000 tokens: 0.351 s arithmetic (0.011 of it under the weights), 0.018 s attention.
    engine = Engine(PAIR)
    engine.submit(Ask(1, 5000, 2))
    step = engine.step(0)
    assert step is not None
    assert step.started == (1,)
    assert (step.split.weights_ns + step.split.prefill_ns) / 1e9 == pytest.approx(0.351 + 0.018, abs=0.002)
    assert step.split.overhead_ns == 80 * 77_000


@pytest.mark.parametrize(("users", "prompt_ms"), [(0, 18.0 - 10.9), (64, 18.0 + 4.5 - 10.9), (256, 18.0)])
def test_a_prompt_is_free_only_while_decoding_leaves_the_units_waiting_for_the_weights(
    users: int, prompt_ms: float
) -> None:
    """70B fp8 on two H100: the weights are read in 10.9 ms; 256 tokens of either kind take 18.0 ms of arithmetic."""
    costs = costs_of(replace(PAIR, max_sequences=256))
    split = costs.split(Load(users, 0.0, 256, 0.0))
    assert split.prefill_ns / 1e6 == pytest.approx(prompt_ms, abs=0.1)
    assert split.weights_ns / 1e6 == pytest.approx(max(10.9, 18.0 * users / 256), abs=0.1)


def test_a_long_prompt_is_cut_to_the_budget_and_others_decode_meanwhile() -> None:
    engine = Engine(replace(PAIR, batch_tokens=2048))
    engine.submit(Ask(1, 100, 50))
    engine.step(0)
    engine.submit(Ask(2, 5000, 10))
    steps = [engine.step(0) for _ in range(3)]
    assert [step.emitted for step in steps if step] == [((1, 1),), ((1, 1),), ((1, 1), (2, 1))]
    assert all(step.split.prefill_ns > 0 for step in steps if step)


def test_cached_tokens_cost_no_time_but_room() -> None:
    cold, warm = Engine(PAIR), Engine(PAIR)
    cold.submit(Ask(1, 8000, 2))
    warm.submit(Ask(1, 8000, 2, cached_tokens=7900))
    slow, quick = cold.step(0), warm.step(0)
    assert slow is not None
    assert quick is not None
    assert quick.ends_ns < slow.ends_ns / 10
    assert warm.kv_used == cold.kv_used == 8000


def test_nobody_overtakes_in_the_queue() -> None:
    engine = Engine(replace(PAIR, max_sequences=2))
    for number in range(8):
        engine.submit(Ask(number, 100, 10))
    steps = trace(engine)
    assert [key for step in steps for key in step.admitted] == list(range(8))
    assert max(len(step.emitted) for step in steps) == 2


def test_a_request_that_can_never_fit_is_refused() -> None:
    engine = Engine(TIGHT)
    with pytest.raises(Refused, match=r"need 99[0-9]+ tokens of KV cache"):
        engine.submit(Ask(1, 99_000, 100))
    assert engine.waiting == 0


@pytest.mark.parametrize("tokens", [(0, 5, 0), (5, 0, 0), (-1, 5, 0), (5, 5, 6), (5, 5, -1)])
def test_an_absurd_request_is_refused(tokens: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="unlike"):
        Ask(1, *tokens)


def test_one_number_stands_for_one_request() -> None:
    engine = Engine(PAIR)
    engine.submit(Ask(1, 5, 5))
    with pytest.raises(ValueError, match="a request 1 already"):
        engine.submit(Ask(1, 5, 5))


def test_when_the_cache_is_full_the_newest_gives_way_and_still_gets_its_whole_answer() -> None:
    engine = Engine(TIGHT)
    for number in range(4):
        engine.submit(Ask(number, engine.kv_capacity // 5, engine.kv_capacity // 8))
    steps = trace(engine)
    assert {key for step in steps for key in step.preempted} == {3}
    produced: Counter[int] = Counter()
    for step in steps:
        produced.update(dict(step.emitted))
    assert set(produced.values()) == {engine.kv_capacity // 8}
    assert [key for step in steps for key in step.started] == [0, 1, 2, 3]


def test_an_engine_that_reserves_answers_never_preempts_but_lets_in_fewer() -> None:
    careful, bold = Engine(replace(TIGHT, reserves_answers=True)), Engine(TIGHT)
    for engine in (careful, bold):
        for number in range(4):
            engine.submit(Ask(number, engine.kv_capacity // 5, engine.kv_capacity // 8))
        engine.step(0)
        engine.step(0)
    assert careful.running == 3
    assert bold.running == 4
    assert not any(step.preempted for step in trace(careful))


def test_a_prompt_that_is_not_divided_waits_for_a_step_that_has_room_for_it() -> None:
    def steps(whole: bool, *prompts: int) -> list[Step]:
        engine = Engine(replace(PAIR, whole_prompts=whole))
        for number, tokens in enumerate(prompts):
            engine.submit(Ask(number, tokens, 2))
        return trace(engine)

    alone = steps(True, 5000)[0].ends_ns
    whole, divided = steps(True, 5000, 5000, 3000), steps(False, 5000, 5000, 3000)
    assert [step.admitted for step in whole[:2]] == [(0,), (1, 2)]
    assert divided[0].admitted == (0, 1)
    assert whole[0].ends_ns == alone
    assert divided[0].ends_ns > 1.5 * alone
    assert steps(True, 4000, 4000)[0].started == (0, 1)


def test_a_prompt_that_no_step_has_room_for_is_divided_all_the_same() -> None:
    engine = Engine(replace(PAIR, whole_prompts=True))
    engine.submit(Ask(1, 20_000, 2))
    assert [step.started for step in trace(engine)] == [(), (), (1,), ()]


def test_a_prompt_that_no_step_has_room_for_does_not_wait_until_the_others_are_done() -> None:
    engine = Engine(replace(PAIR, whole_prompts=True))
    engine.submit(Ask(1, 100, 50))
    engine.step(0)
    engine.submit(Ask(2, 20_000, 2))
    assert [step.started for step in trace(engine)[:3]] == [(), (), (2,)]


def test_accepted_drafts_come_together_with_the_checked_token() -> None:
    engine = Engine(DRAFTING, seed=3)
    engine.submit(Ask(1, 50, 4000))
    bursts = [step.emitted[0][1] for step in trace(engine)][1:-1]
    assert set(bursts) == {1, 2, 3, 4}
    speculation = DRAFTING.speculation
    assert speculation is not None
    assert fmean(bursts) == pytest.approx(speculation.mean_tokens(), rel=0.03)
    assert speculation.mean_tokens() == pytest.approx(2.98, abs=0.01)


def test_drafts_help_few_users_and_hardly_many_when_arithmetic_is_short() -> None:
    """The gain vanishes as checking the drafts makes a step compute-bound."""
    drafting = replace(PAIR, speculation=DRAFTING.speculation)

    def gain(users: int) -> float:
        return pace(loop(drafting, users, 50, 200, 2)) / pace(loop(PAIR, users, 50, 200, 2))

    assert gain(1) > 2.3
    assert gain(200) < 1.2


def test_windowed_layers_take_less_room() -> None:
    engine = Engine(MIXED)
    engine.submit(Ask(1, 1000, 2))
    engine.step(0)
    assert engine.kv_used == 0.5 * 1000 + 0.5 * 128


def test_a_wafer_keeps_its_pace_up_to_its_slots_and_then_shares_it() -> None:
    alone, full, double = (pace(loop(FAST, users, 20, 400)) for users in (1, 36, 72))
    assert alone == pytest.approx(1e6 / (36 * 13.49), rel=0.001)
    assert full == pytest.approx(alone, rel=0.03)
    assert double == pytest.approx(alone / 2, rel=0.06)


def test_a_prompt_passes_a_wafer_at_its_rate_and_disturbs_nobody() -> None:
    engine = Engine(FAST)
    engine.submit(Ask(1, 10, 5000))
    engine.step(0)
    engine.submit(Ask(2, 3000, 2))
    steps = trace(engine)
    began = steps[0].began_ns
    first = next(step.ends_ns for step in steps if 2 in step.started)
    assert (first - began) / 1e9 == pytest.approx(3000 / 15_000, rel=0.01)
    assert {step.split for step in steps if 1 in dict(step.emitted)} == {steps[0].split}


def test_an_unknown_request_has_no_times() -> None:
    with pytest.raises(KeyError):
        Engine(PAIR).time_of(4)


def test_cancelling_frees_slot_and_cache_at_once_and_twice_is_once() -> None:
    engine = Engine(PAIR)
    for number in range(3):
        engine.submit(Ask(number, 4000, 100))
    engine.step(0)
    before = engine.kv_used
    engine.cancel(1)
    engine.cancel(1)
    assert engine.kv_used <= before - 4000
    assert engine.running + engine.waiting == 2
    assert all(1 not in dict(step.emitted) for step in trace(engine))


def test_a_closed_loop_keeps_its_users_to_the_end() -> None:
    engine, lengths = Engine(PAIR), uniform_lengths(100, 20, 0.5, 1)
    run = closed_loop(engine, spread_out(3, lengths, 1e9), lengths, 10)
    assert len(run.records) == 10
    assert all(50 <= record.ask.prompt_tokens <= 100 for record in run.records)
    assert engine.running + engine.waiting == 2  # the third has just been answered


def test_arrivals_after_a_pause_start_when_they_come() -> None:
    run = run_virtual(Engine(PAIR), [Arrival(0, 10, 2), Arrival(10**12, 10, 2)], api_ns=5)
    first, second = run.records
    assert second.ask.arrived_ns == 10**12
    assert second.ttft_ns == first.ttft_ns
    assert second.e2e_ns > second.ttft_ns


def test_an_answer_of_one_token_has_no_time_per_token() -> None:
    run = run_virtual(Engine(PAIR), [Arrival(0, 10, 1)])
    assert run.records[0].tpot_ns is None
    assert run.records[0].e2e_ns == run.records[0].ttft_ns


def test_a_wafer_computes_prompts_side_by_side_up_to_its_slots() -> None:
    def first_token_ns(users: int) -> int:
        return max(record.first_ns for record in loop(FAST, users, 6000, 10, 1).records)

    alone, full, twice = first_token_ns(1), first_token_ns(36), first_token_ns(72)
    assert full == pytest.approx(alone, rel=0.05)
    assert twice == pytest.approx(2 * alone, rel=0.1)
