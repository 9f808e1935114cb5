"""What a result says besides its figures."""

from __future__ import annotations

from tests.core.test_loadstats import record, stats
from webapp.core.arrivals import Schedule
from webapp.core.generator import Watch
from webapp.core.loadplan import Plan, Target
from webapp.core.loadstats import LoadStats
from webapp.core.loadsummary import COMPLETE, summarise

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
