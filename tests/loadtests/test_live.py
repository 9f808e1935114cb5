"""What a run says of its last seconds, while it goes on."""

from __future__ import annotations

import pytest

from loadtests.live import Recent, Recently

TOKENS_PER_S = 500


@pytest.mark.parametrize(("processes", "every_ms"), [(1, 400), (2, 250), (4, 250)])
def test_a_steady_flow_has_its_own_rate_from_the_first_second_on(processes: int, every_ms: int) -> None:
    recently, told_ms = Recently(), [0] * processes
    for at_ms in range(1, 30_000):
        for process in range(processes):
            if at_ms % every_ms == every_ms * process // processes:  # each tells in its turn
                tokens = TOKENS_PER_S * (at_ms - told_ms[process]) // 1000 // processes
                told_ms[process] = at_ms
                recently.add(at_ms * 1_000_000, {"a": Recent(tokens=tokens)})
        if at_ms % 400 == 0 and at_ms > 1000:
            rate = recently.figures(at_ms * 1_000_000, "a")["output_tokens_per_s"]
            assert rate == pytest.approx(TOKENS_PER_S, rel=0.02 if at_ms > 10_000 else 0.2), at_ms


def test_what_is_older_than_the_window_is_forgotten() -> None:
    recently = Recently(seconds=10)
    recently.add(1_000_000_000, {"a": Recent(ok=5)})
    assert recently.figures(2_000_000_000, "a")["requests_per_s"] == 5
    assert recently.figures(12_000_000_000, "a")["requests_per_s"] == 0


def test_a_gap_between_chunks_of_one_read_is_not_known() -> None:
    recent = Recent()
    recent.icl.record(0, 8)
    recent.icl.record(2_000_000, 2)
    recently = Recently()
    recently.add(1_000_000_000, {"a": recent})
    figures = recently.figures(2_000_000_000, "a")
    assert (figures["icl_p50_ms"], figures["icl_p95_ms"]) == (None, 2.0)
