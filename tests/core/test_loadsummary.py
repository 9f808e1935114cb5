"""What a result says besides its figures."""

from __future__ import annotations

import orjson
import pytest

from tests.core.test_loadstats import record, stats
from webapp.core import vllmbench
from webapp.core.arrivals import Schedule
from webapp.core.generator import Watch
from webapp.core.loadplan import Plan, Target
from webapp.core.loadstats import LoadStats
from webapp.core.loadsummary import COMPLETE, summarise

MS = 1_000_000
TARGET = Target("a", "http://127.0.0.1:9/v1", "a")


def warnings(plan: Plan, counted: LoadStats) -> str:
    start = {"started_at": 0.0, "t0_ns": 0, "versions": {}}
    found = summarise(plan, counted, Watch(), ended=COMPLETE, elapsed_ns=10**10, **start)
    return " ".join(found["backends"]["a"]["warnings"])


def test_what_of_a_trace_lies_beyond_the_run_is_said() -> None:
    trace = tuple((at_s, None, None) for at_s in (0.0, 1.0, 3.0, 10.0, 50.0))
    plan = Plan((TARGET,), mode="rate", schedule=Schedule(trace=trace), duration_s=10.0)
    assert "2 of the trace's 5 arrivals lie beyond the run's 10 s." in warnings(plan, stats(record(), record()))
    assert "beyond" not in warnings(Plan((TARGET,), duration_s=10.0), stats(record(), record()))


def test_how_far_apart_chunks_of_one_read_were_sent_is_not_known_and_that_is_said() -> None:
    gaps_ns = (0, 0, 0, 0, 0, 0, 0, 2 * MS, 2 * MS, 2 * MS)
    counted = stats(record(gaps_ns=gaps_ns), record(gaps_ns=gaps_ns))
    assert "70% of chunks came in one read with the one before" in warnings(Plan((TARGET,)), counted)
    icl = counted.summary(["a"])["a"]["icl_ms"]
    assert (icl["n"], icl["mean"], icl["p50"]) == (20, pytest.approx(0.6), None)
    assert icl["p90"] == pytest.approx(2, rel=0.01)
    vllm = orjson.loads(vllmbench.results(Plan((TARGET,)), counted, 8.0, 0.0))
    assert (vllm["median_itl_ms"], vllm["p90_itl_ms"]) == (None, icl["p90"])


def test_few_chunks_that_came_together_are_nothing_to_speak_of() -> None:
    counted = stats(record(gaps_ns=(0, *(2 * MS,) * 9)))
    assert "one read" not in warnings(Plan((TARGET,)), counted)
    assert counted.summary(["a"])["a"]["icl_ms"]["p50"] == pytest.approx(2, rel=0.01)
