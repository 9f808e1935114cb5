"""How a row's load is replayed, held to what can be worked out by hand: Little's law, waves, the lengths drawn."""

from dataclasses import replace
from statistics import fmean

import pytest

from tests.simulator.measured import CATALOGUE, line, rows_of
from webapp.simulator.engine import Engine
from webapp.simulator.front_end import FrontEnd
from webapp.simulator.hardware import Serving
from webapp.simulator.validation import bench
from webapp.simulator.validation.bench import Way, expect
from webapp.simulator.validation.published import mean_step_ns
from webapp.simulator.validation.rows import Row, serving_of
from webapp.simulator.virtual import all_at_once, closed_loop, normal_lengths, uniform_lengths

WAVES, AT_ONCE = 8, 64  # users over what the recipe of these rows lets in


def row_of(**changes: object) -> Row:
    (row,) = rows_of([line(**changes)])
    return row


def serving(row: Row, layer_us: float = 77.0) -> Serving:
    return serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model], layer_us)


def times(row: Row, way: Way = bench.USUAL) -> tuple[float, float]:
    """Mean TPOT and TTFT, ms."""
    result = expect(row, serving(row), way)
    assert result.tpot_ms is not None
    assert result.ttft_ms is not None
    return result.tpot_ms, result.ttft_ms


def crowd() -> tuple[Row, float]:
    """Users of whom an eighth is let in at once, and how long the engine works on one of them, ms."""
    row = row_of(model="openai/gpt-oss-120b", version="0.11.2", tp=8, concurrency=WAVES * AT_ONCE, isl=256, osl=512)
    return row, times(row)[0] * row.mean_tokens[1]


def test_a_pace_in_the_steady_state_is_that_of_the_mean_step() -> None:
    row = row_of(concurrency=64, isl=512, osl=256, attention_dp="")
    assert times(row)[0] * 1e6 == pytest.approx(mean_step_ns(serving(row), 64, 512, 256), rel=0.02)


def test_users_that_are_not_let_in_wait_as_littles_law_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven of eight users wait at any time, so each waits for seven answers' time."""
    monkeypatch.setattr(bench, "BURST_SHARE", 0.0)
    row, service_ms = crowd()
    assert times(row)[1] == pytest.approx((WAVES - 1) * service_ms, rel=0.03)


def test_the_waves_of_a_start_wait_for_those_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """None, one, … seven answers' time: three and a half on average, though that is 24 s for the last."""
    monkeypatch.setattr(bench, "BURST_SHARE", 1.0)
    row, service_ms = crowd()
    assert (WAVES - 1) * service_ms > 20_000
    assert times(row)[1] == pytest.approx((WAVES - 1) / 2 * service_ms, rel=0.03)


def test_whoever_waits_when_a_start_is_given_up_has_waited_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BURST_SHARE", 1.0)
    row, service_ms = crowd()
    monkeypatch.setattr(bench, "HOPELESS_NS", int(2.5 * service_ms * 1e6))
    assert times(row)[1] == pytest.approx((0 + 1 + 2 + 5 * 2.5) / WAVES * service_ms, rel=0.03)


def test_a_start_that_never_ends_counts_as_saturated() -> None:
    assert bench.BURST_SHARE * bench.HOPELESS_NS / 1e6 > bench.SATURATED_TTFT_MS


def test_a_lone_user_of_inferencex_sends_no_more_than_the_nominal_length() -> None:
    def first_ms(**changes: object) -> float:
        return times(row_of(concurrency=1, osl=64, **changes))[1]

    drawn, nominal = first_ms(isl=8000), first_ms(isl=8000, attention_dp="")
    assert first_ms(isl=6400, attention_dp="") <= drawn < nominal


def test_where_few_answers_were_counted_several_draws_of_their_lengths_are() -> None:
    row, deviations = row_of(concurrency=16, isl=400, osl=300, attention_dp=""), (200.0, 150.0)

    def run(seed: int) -> float:
        lengths = normal_lengths(400, 300, deviations, seed)
        records = closed_loop(Engine(serving(row)), all_at_once(16, lengths), lengths, 32).records
        return fmean(record.ttft_ns for record in records) / 1e6

    draws = [run(seed) for seed in (1, 2, 3)]
    assert len(set(draws)) == 3
    assert times(row, Way(answers=32, deviations=deviations))[1] == pytest.approx(fmean(draws))


def test_of_users_in_step_the_third_to_the_fifth_answer_count() -> None:
    """Behind a front end they drift apart, so that it matters."""
    users, row = 60, row_of(model="llama-8b", concurrency=60, isl=200, osl=200, attention_dp="")
    lengths = uniform_lengths(200, 200, 1.0, 1)
    front, engine = FrontEnd(2_500_000, 64_000), Engine(serving(row))
    records = closed_loop(engine, all_at_once(users, lengths), lengths, 6 * users, 2_500_000, front=front).records
    rounds = [fmean(each.ttft_ns for each in records[start : start + users]) for start in range(0, 6 * users, users)]
    assert rounds[5] < 0.8 * rounds[2] < 0.8 * rounds[0]
    found = times(row, Way(in_step=True, api_ms=5.0, token_us=64.0))[1]
    assert found * 1e6 == pytest.approx(fmean(rounds[2:5]), rel=0.001)


def test_a_front_end_adds_its_time_to_a_lone_users_first_token() -> None:
    row = row_of(concurrency=1, isl=200, osl=200, attention_dp="")
    plain, behind = times(row, Way(in_step=True)), times(row, Way(in_step=True, api_ms=5.0, token_us=64.0))
    assert behind[1] == pytest.approx(plain[1] + 5.0 + 0.064)
    assert behind[0] == pytest.approx(plain[0])


def test_users_in_step_behind_a_full_front_end_wait_for_half_of_its_time_each() -> None:
    """At a millisecond a token it is full with 100 users: a round is 100 answers' work, and so is its first token's."""
    row = row_of(model="llama-8b", concurrency=100, isl=200, osl=50, attention_dp="")
    result = expect(row, serving(row, 60.0), Way(in_step=True, api_ms=6.0, token_us=1000.0))
    assert result.ttft_ms is not None
    assert result.tpot_ms is not None
    assert result.ttft_ms + 49 * result.tpot_ms == pytest.approx(100 * (3.0 + 50 * 1.0), rel=0.03)
    assert result.ttft_ms > 100 * 3.0


def test_what_cannot_be_served_is_expected_to_be_full() -> None:
    row = row_of(isl=100_000)
    small = replace(serving(row), machine=replace(CATALOGUE.machines["h100"], memory_gb=44.5))
    result = expect(row, small)
    assert (result.tpot_ms, result.ttft_ms) == (None, None)
    assert result.kv_share > 1
