"""What holds of an engine whatever is asked of it: tokens, cache, times and users add up."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.servings import (
    DRAFTING,
    FAST,
    MIXED,
    PAIR,
    SERVINGS,
    SPARSE,
    loop,
    pace,
    throughput,
    trace,
)
from webapp.simulator.engine import Ask, Engine, Step
from webapp.simulator.hardware import Serving
from webapp.simulator.profile import load_all
from webapp.simulator.virtual import Arrival, run_virtual

each_serving = pytest.mark.parametrize("serving", SERVINGS.values(), ids=SERVINGS)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_the_parts_of_a_step_make_its_time(sigma: float) -> None:
    engine = Engine(replace(PAIR, jitter_sigma=sigma))
    engine.submit(Ask(1, 5000, 30))
    engine.submit(Ask(2, 3000, 30))
    assert all(sum(step.split) == step.ends_ns - step.began_ns for step in trace(engine))


@pytest.mark.parametrize("prompt", [20, 127, 128, 129, 400])
@pytest.mark.parametrize("serving", [MIXED, DRAFTING], ids=["plain", "drafting"])
def test_the_running_sums_equal_a_recount(serving: Serving, prompt: int) -> None:
    engine = Engine(serving, 7)
    lengths = {1: prompt, 2: prompt + 1}
    for number, tokens in lengths.items():
        engine.submit(Ask(number, tokens, 300))
    context = dict.fromkeys(lengths, 0)
    while (step := engine.step(0)) is not None:
        for key, tokens in step.emitted:
            context[key] = lengths[key] if key in step.started else context[key] + tokens
        for key in step.finished:
            del context[key]
        assert engine.kv_used == sum(SPARSE.resident(tokens) for tokens in context.values())


@each_serving
def test_the_same_seed_gives_the_same_trace_and_another_one_not(serving: Serving) -> None:
    def run(seed: int) -> list[Step]:
        engine = Engine(replace(serving, jitter_sigma=0.02), seed)
        for number in range(5):
            engine.submit(Ask(number, 200 + number, 40))
        return trace(engine)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_jitter_does_not_change_the_pace() -> None:
    calm, noisy = pace(loop(PAIR, 4, 100, 1000)), pace(loop(replace(PAIR, jitter_sigma=0.05), 4, 100, 1000))
    assert noisy == pytest.approx(calm, rel=0.005)


def test_times_of_a_request_add_up() -> None:
    engine = Engine(replace(PAIR, max_sequences=1))
    engine.submit(Ask(1, 500, 20, arrived_ns=0))
    engine.submit(Ask(2, 500, 20, arrived_ns=0))
    steps = trace(engine)
    times = engine.time_of(2)
    assert times.queue_ns == engine.time_of(1).prefill_ns + engine.time_of(1).decode_ns
    assert times.queue_ns + times.prefill_ns + times.decode_ns == steps[-1].ends_ns
    assert sum(times.split) == times.prefill_ns + times.decode_ns


@pytest.mark.parametrize("slug", ["h100x2-llama-70b", "wse3-llama-70b", "h100x2-gpt-oss-120b"])
def test_the_parts_of_every_requests_time_sum_to_it_under_load(slug: str) -> None:
    # Twice as many as fit, so that some wait and some are preempted; prompts of others come in between.
    serving = load_all()[slug].serving
    engine = Engine(serving)
    tokens = int(engine.kv_capacity / serving.model.resident(1) / 12)
    asks = [Ask(number, max(1, tokens // (2 + number % 3)), 40) for number in range(60)]
    for ask in asks:
        engine.submit(ask)
    steps = trace(engine)
    assert any(step.preempted for step in steps) or engine.time_of(59).queue_ns > 0
    for ask in asks:
        times = engine.time_of(ask.id)
        assert sum(times.split) == times.prefill_ns + times.decode_ns
        last_ns = next(step.ends_ns for step in reversed(steps) if ask.id in dict(step.emitted))
        assert times.queue_ns + sum(times.split) == last_ns


@each_serving
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_tokens_are_conserved_and_the_cache_never_overflows(serving: Serving, data: st.DataObject) -> None:
    """Whatever comes and goes: everyone gets exactly their tokens, once, and KV stays within its capacity."""
    engine = Engine(serving, 1)
    most = engine.kv_capacity // 2
    asks = data.draw(st.lists(st.tuples(st.integers(1, min(most, 9000)), st.integers(1, 300)), min_size=1, max_size=12))
    produced: Counter[int] = Counter()
    cancelled, finished = set(), []
    coming = [Ask(number, prompt, output) for number, (prompt, output) in enumerate(asks)]
    while coming or engine.running or engine.waiting:
        if coming and (not engine.running or data.draw(st.booleans())):
            engine.submit(coming.pop(0))
        elif engine.running and len(cancelled) < 3 and data.draw(st.integers(0, 40)) == 0:
            key = data.draw(st.integers(0, len(asks) - 1))
            if key not in finished and key < len(asks) - len(coming):
                cancelled.add(key)
                engine.cancel(key)
        for _ in range(data.draw(st.sampled_from([1, 1, 30]))):
            step = engine.step(0)
            if step is None:
                break
            produced.update(dict(step.emitted))
            finished += step.finished
            assert 0 <= engine.kv_used <= engine.kv_capacity
            assert step.ends_ns > step.began_ns
            assert min(step.split) >= 0
    assert engine.kv_used == 0
    assert sorted(finished) == [key for key in range(len(asks)) if key not in cancelled]
    assert all(produced[key] == asks[key][1] for key in finished)
    assert all(produced[key] < asks[key][1] for key in cancelled)


@pytest.mark.parametrize("serving", [PAIR, MIXED, FAST], ids=["dense", "sparse", "wafer"])
@settings(deadline=None, max_examples=8)
@given(users=st.integers(1, 60), prompt=st.integers(10, 3000), output=st.integers(50, 200))
def test_more_users_never_raise_the_pace_of_one(serving: Serving, users: int, prompt: int, output: int) -> None:
    few, many = loop(serving, users, prompt, output, 3), loop(serving, 2 * users, prompt, output, 3)
    assert pace(many) <= pace(few) * 1.001


@pytest.mark.parametrize("serving", [PAIR, MIXED, FAST], ids=["dense", "sparse", "wafer"])
def test_throughput_does_not_fall_before_saturation(serving: Serving) -> None:
    rates = [throughput(loop(serving, users, 500, 200)) for users in (1, 2, 4, 8, 16, 32, 64)]
    assert all(later >= 0.99 * earlier for earlier, later in pairwise(rates))


@each_serving
def test_littles_law_holds(serving: Serving) -> None:
    """Mean requests in the system = arrival rate × mean time in it, over a run that begins and ends empty."""
    engine = Engine(replace(serving, jitter_sigma=0.02), 5)
    arrivals = [Arrival(number * 40_000_000, 300 + number % 7 * 100, 60 + number % 5 * 10) for number in range(400)]
    area, last = 0.0, 0

    def watch(step: Step) -> None:
        nonlocal area, last
        came = sum(last < arrival.at_ns <= step.ends_ns for arrival in arrivals)
        inside = engine.running + engine.waiting + len(step.finished)
        area += inside * (step.ends_ns - last) + came * (step.ends_ns - last) / 2
        last = step.ends_ns

    run = run_virtual(engine, arrivals, watch=watch)
    in_system = area / run.ends_ns
    rate, stay = len(arrivals) / run.ends_ns, fmean(record.e2e_ns for record in run.records)
    assert in_system == pytest.approx(rate * stay, rel=0.02)
