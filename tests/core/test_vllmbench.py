"""Results in the shape of vLLM's: what is known stands there as vLLM writes it, what is not is null."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.core.test_loadstats import record, stats
from webapp.core import arrivals, vllmbench
from webapp.core.loadplan import Plan, Target
from webapp.core.loadrecord import Record

TARGET = Target("a", "http://127.0.0.1:9/v1", "a")


def line(*records: Record, kind: str = "poisson", cv: float = 1.0) -> dict[str, Any]:
    plan = Plan((TARGET,), mode="rate", schedule=arrivals.flat(kind, 5.0, cv))
    found: dict[str, Any] = orjson.loads(vllmbench.results(plan, stats(*records), 8.0, 0.0))
    return found


def test_a_percentile_of_too_few_samples_is_null_and_one_of_enough_is_there() -> None:
    few, enough = (line(*[record() for _ in range(count)]) for count in (19, 100))
    assert (few["median_ttft_ms"], few["p95_ttft_ms"], few["p99_ttft_ms"]) == (pytest.approx(100, rel=0.01), None, None)
    assert enough["p99_ttft_ms"] == pytest.approx(100, rel=0.01)


def test_a_server_that_never_answered_has_no_latencies() -> None:
    dead = line(record(outcome="failed", error_kind="refused", error="refused"))
    assert (dead["completed"], dead["failed"]) == (0, 1)
    assert {dead[f"{part}_{name}_ms"] for part in ("mean", "std", "p99") for name in ("ttft", "tpot")} == {None}


def test_tokens_that_nobody_counted_are_null() -> None:
    assert (line(record())["total_input_tokens"], line(record())["total_token_throughput"]) == (None, None)
    assert line(record(input_tokens=7))["total_input_tokens"] == 7


@pytest.mark.parametrize(
    ("kind", "cv", "expected"), [("constant", 1.0, "inf"), ("poisson", 1.0, 1), ("gamma", 2.0, 0.25)]
)
def test_burstiness_is_what_vllm_means_by_it(kind: str, cv: float, expected: float | str) -> None:
    assert line(record(), kind=kind, cv=cv)["burstiness"] == expected
