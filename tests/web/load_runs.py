"""Rows of load runs as the pages' tests need them: kept without a run, whatever their number of requests."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from webapp.core.generator import Watch
from webapp.core.histogram import Histogram
from webapp.core.loadplan import Plan, Target
from webapp.core.loadstats import BackendStats, LoadStats
from webapp.core.loadsummary import chart_data, described, summarise
from webapp.models import LoadRun

HOSTILE = "<script>alert(1)</script>"
LIVE = {
    "t_s": 1.0,
    "users": 3,
    "backends": {"a": {"ttft_p50_ms": 5.0, "ttft_p95_ms": 9.0, "icl_p50_ms": 1.0, "output_tokens_per_s": 7}},
}


def finished(requests: int, counts: dict[str, int] | None = None, **fields: Any) -> LoadRun:
    """Keep the row of a run with so many requests and these `counts` of its statistics; it has left no files."""
    plan = Plan(targets=(Target("a", "http://127.0.0.1:1/v1", "a", "Backend A", "SIMULATED"),), users=3, slo="ttft:900")
    stats = LoadStats(
        plan.window, plan.limits(), {"a": BackendStats(ok=requests, good=requests, failed=1, **(counts or {}))}
    )
    for name in ("ttft", "ttft_sched", "tpot", "tpot_sched", "icl", "e2e", "e2e_sched"):
        counts = {1000 + k: max(1, requests // 400) for k in range(400)}
        n = sum(counts.values())
        stats.backend("a").histograms[name] = Histogram(counts, n, n * 10**8, 10**8, 10**8)
    stats.backend("a").by_error = {"5xx": 1}
    error = {"category": "5xx", "kind": "http_status", "message": HOSTILE, "status": 500, "number": 1, "count": 1}
    stats.backend("a").examples = {"x": error}
    summary = summarise(plan, stats, Watch(), ended="complete", elapsed_ns=30 * 10**9, started_at=0.0, t0_ns=0,
                        versions={"locust": "2"})  # fmt: skip
    row = LoadRun(
        created_at=timezone.now(), asked_by="page", state=LoadRun.State.DONE, wire="sse", mode="users", backends=["a"],
        plan=described(plan), summary=summary, charts=chart_data(plan, stats, [LIVE] * 900), exit_code=1,
        folder="/nowhere/at/all", **fields,
    )  # fmt: skip
    row.save(force_insert=True)
    return row
