"""Our figures against the stamps of a server that says when it wrote what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.core.streams import NS_PER_MS, at, measured, said
from tests.upstreams.wire import DONE, usage
from webapp.core.timing import figures
from webapp.core.truth import Emitted, Truth, emitted, truth

# On the server's clock: the request comes at 5,000 ms; six tokens, two of them at 5,100 ms and then one every 20 ms.
STAMPS = {"arrived_ns": 5_000_000_000, "first_ns": 5_100_000_000, "last_ns": 5_180_000_000, "first_tokens": 2}
STAMPS["late_ns"] = 1_500_000


def held(*arrivals_ms: float, tokens: int = 6, stamps: Any = STAMPS) -> Truth:
    """Return what the stamps say of an answer whose chunks arrived at these ms after its request."""
    reads = [(ms, said({"content": "word" if n else "two words"})) for n, ms in enumerate(arrivals_ms)]
    last_ms = arrivals_ms[-1]
    info = {"queue_time": 0.0, "emitted": stamps}
    end = said(None, usage=usage(tokens), time_info=info)
    meter = measured(*reads, (last_ms, said({}, finish="stop")), (last_ms, end), (last_ms, DONE))
    meter.finish(at(last_ms))
    found = emitted(meter.server_times)
    assert found is not None
    return truth(found, figures(meter.marks, meter.deltas, meter.usage))


def test_the_stamps_give_the_figures_by_the_same_definitions_as_ours():
    found = held(100, 120, 140, 160, 180)
    assert (found.ttft_ms, found.e2e_ms, found.tpot_ms) == (100, 180, 20)
    assert (found.ttft_off_ms, found.e2e_off_ms, found.tpot_off) == (0, 0, pytest.approx(0))


def test_a_steady_delay_is_in_the_first_token_and_the_total_and_not_in_the_pace():
    found = held(101.5, 121.5, 141.5, 161.5, 181.5)
    assert (found.ttft_off_ms, found.e2e_off_ms) == (1.5, 1.5)
    assert found.tpot_off == pytest.approx(0)


def test_the_servers_own_lateness_is_told_beside_the_figures_and_not_taken_off_them():
    on_time = held(100, 120, 140, 160, 180, stamps={**STAMPS, "late_ns": 0})
    late = held(100, 120, 140, 160, 180)
    assert (on_time.late_ms, late.late_ms) == (0, 1.5)
    assert replace(late, late_ms=0.0) == on_time


def test_a_late_end_is_a_wrong_pace():
    found = held(100, 120, 140, 160, 188)
    assert found.e2e_off_ms == 8
    assert found.tpot_off == pytest.approx(0.1)


def test_a_token_count_that_is_one_off_shows():
    assert held(100, 120, 140, 160, 180, tokens=7).tpot_ms == 16


def test_one_chunk_has_no_pace_to_hold_against():
    found = held(100, tokens=2, stamps={**STAMPS, "last_ns": STAMPS["first_ns"]})
    assert (found.tpot_ms, found.tpot_off) == (None, None)
    assert found.e2e_off_ms == 0


def test_a_turn_without_text_is_off_by_nothing_known():
    found = truth(Emitted(**STAMPS), figures(measured((1, said({}, finish="stop"))).marks, [], None))
    assert (found.ttft_off_ms, found.e2e_off_ms, found.tpot_off) == (None, None, None)


@pytest.mark.parametrize(
    "block",
    [
        None,
        [],
        {},
        "now",
        {**STAMPS, "first_ns": None},
        {**STAMPS, "first_ns": "5100000000"},
        {**STAMPS, "last_ns": STAMPS["first_ns"] - NS_PER_MS},
        {**STAMPS, "first_ns": STAMPS["arrived_ns"] - 1},
        {**STAMPS, "first_tokens": 0},
        {**STAMPS, "late_ns": -1},
    ],
)
def test_stamps_that_are_missing_or_impossible_are_none(block: Any):
    assert emitted({"Cerebras": {"queue_time": 1, "emitted": block}}) is None
    assert emitted({}) is None


def test_stamps_are_found_whoever_s_block_they_stand_in():
    assert emitted({"llama.cpp": {"prompt_ms": 3}, "Cerebras": {"emitted": STAMPS}}) == Emitted(**STAMPS)
