"""Adds two finished load runs to the database in VAR_DIR, of a thousand requests and of a million; prints their ids.

    VAR_DIR=… python -m tests.bench.loadrows

Their histograms are drawn, not measured; every size that a result page has to do with is that of a real run.
"""

from __future__ import annotations

import os
import random

import django

SIZES = (1_000, 1_000_000)
VALUES = 1_000


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    django.setup()
    from webapp.core.generator import Watch  # noqa: PLC0415 (models exist only after set-up)
    from webapp.core.loadplan import Plan, Target  # noqa: PLC0415
    from webapp.core.loadstats import LoadStats  # noqa: PLC0415
    from webapp.core.loadsummary import chart_data, summarise  # noqa: PLC0415
    from webapp.services import load  # noqa: PLC0415

    drawn = random.Random(1)
    plan = Plan(tuple(Target(slug, "http://127.0.0.1:9/v1", slug) for slug in ("fast", "slow")), duration_s=600)
    for size in SIZES:
        stats = LoadStats(plan.window)
        for slug in plan.slugs:
            backend = stats.backend(slug)
            backend.ok = backend.ended = size
            for figure in ("ttft", "ttfo", "tpot", "e2e"):
                for _ in range(VALUES):
                    value = round(drawn.lognormvariate(18, 1))
                    backend.histogram(figure).record(value, size // VALUES)
                    backend.histogram(f"{figure}_sched").record(value, size // VALUES)
            for _ in range(VALUES):
                backend.histogram("icl").record(round(drawn.lognormvariate(16, 0.5)), size // 10)
        figures = {"ttft_p50_ms": 50.0, "ttft_p95_ms": 90.0, "icl_p95_ms": 20.0, "output_tokens_per_s": 1000.0}
        series = [{"t_s": k / 2, "backends": dict.fromkeys(plan.slugs, figures)} for k in range(1200)]
        row = load.make_row(plan, asked_by="cli", title=f"{size} requests")
        row.summary = summarise(
            plan, stats, Watch(), ended="complete", elapsed_ns=600 * 10**9, started_at=0.0, t0_ns=0, versions={}
        )
        row.charts, row.state, row.exit_code = chart_data(plan, stats, series), row.State.DONE, 0
        row.save()
        print(row.id, flush=True)


if __name__ == "__main__":
    main()
