"""Paired comparisons: a difference is found where there is one, and none where there is none."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from webapp.core.paired import Pairing, median_interval, verdict


def sides(offset_ms: float, n: int, seed: int = 1) -> list[float]:
    """Differences of pairs whose own times vary far more than the two sides differ."""
    random = Random(seed)
    found = []
    for _ in range(n):
        base = random.lognormvariate(5, 1)
        found.append((base * random.gauss(1, 0.02) + offset_ms) - base * random.gauss(1, 0.02))
    return found


def test_a_small_difference_is_found_under_a_large_variance() -> None:
    found = verdict(sides(-10, 60))
    assert found["result"] == "A faster"
    assert found["interval_ms"][0] < -10 < found["interval_ms"][1] < 0
    assert found["p_a_faster"] > 0.8
    assert verdict(sides(10, 60))["result"] == "B faster"


def test_an_a_a_run_says_no_difference() -> None:
    results = [verdict(sides(0, 200, seed))["result"] for seed in range(60)]
    assert results.count("no difference") >= 58  # 99 % intervals


def test_few_pairs_tell_nothing() -> None:
    assert verdict(sides(-50, 11))["result"] == "cannot tell"
    assert verdict([])["p_a_faster"] is None


def test_the_median_of_many_lies_in_its_interval() -> None:
    low, high = median_interval(list(range(101)))
    assert low is not None
    assert high is not None
    assert low < 50 < high
    assert median_interval([1.0, 2.0]) == (None, None)


def line(backend: str, pair: int, ttft_ms: float, outcome: str = "done") -> dict[str, Any]:
    marks = {"sent": 1000, "first_token": 1000 + ttft_ms * 1000, "last_token": 5000 + ttft_ms * 1000}
    return {"backend": backend, "pair": pair, "turn": 0, "outcome": outcome, "marks_us": marks, "tpot_us": 500.0}


def test_records_meet_by_their_pair_and_a_failure_leaves_its_pair_out() -> None:
    pairing = Pairing(["a", "b"])
    for pair in range(20):
        pairing.add(line("b", pair, 30))
        pairing.add(line("a", pair, 10, "failed" if pair == 7 else "done"))
    first = pairing.verdicts()[0]
    assert (first["a"], first["b"], first["figure"], first["n"]) == ("a", "b", "ttft", 19)
    assert first["difference_ms"] == pytest.approx(-20)
