"""Makes the directories and rows of two finished load runs, of a thousand requests and of a million; prints their ids.

    VAR_DIR=… python -m tests.bench.loadrows [REQUESTS …]

Only the network is left out: each request is an exchange with marks and chunks of its own, and goes the way of every
other through the registry, the collector and its files, the row and the report.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import django

from loadtests.collector import Collector
from loadtests.exchange import Exchange, Job
from loadtests.registry import Registry
from webapp.clock import now_ns
from webapp.core.loadplan import Plan, Target
from webapp.core.mixes import Question
from webapp.core.openai import Usage

SIZES = (1_000, 1_000_000)
CHUNKS = 4
LOOKS = 1_200  # of the collector within a run
QUESTION = Question("How long?", CHUNKS)
NS_PER_MS = 1_000_000


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    django.setup()
    from webapp.services import load, loadreport  # noqa: PLC0415 (models exist only after set-up)
    from webapp.services.loadresults import results  # noqa: PLC0415

    for size in map(int, sys.argv[1:]) if len(sys.argv) > 1 else SIZES:
        folder = Path(os.environ["VAR_DIR"]) / f"load-of-{size}"
        run(folder, size)
        summary, charts, _ = results(folder)
        loadreport.write(folder, summary, charts)
        print(load.keep_finished(folder, summary, title=f"{size} requests").id, flush=True)


def run(folder: Path, size: int) -> None:
    """Leave in `folder` what a run of `size` requests to two backends within ten minutes leaves."""
    targets = tuple(Target(slug, "http://127.0.0.1:9/v1", slug, slug, "LIVE") for slug in ("fast", "slow"))
    plan = Plan(targets, duration_s=600, slo="ttft:500 tpot:50", users=100)
    drawn = random.Random(size)
    registry, collector = Registry(plan), Collector(plan, folder, now_ns(), time.time())
    registry.t0_ns = collector.t0_ns
    every = max(1, size // LOOKS)
    for number in range(size):
        at_ns = registry.t0_ns + round(600e9 * number / size)
        exchange = answered(targets[number % 2], number, at_ns, drawn)
        registry.started_one(exchange)
        registry.ended_one(exchange, "done")
        if number % every == every - 1:
            collector.absorb("own", registry.take())
            collector.live_line(plan.users, None)
    collector.absorb("own", registry.take())
    collector.live_line(plan.users, None)
    collector.finish("complete")


def answered(target: Target, number: int, at_ns: int, drawn: random.Random) -> Exchange:
    """Return a request that was meant to leave at `at_ns`, with an answer of CHUNKS chunks."""
    exchange = Exchange(Job(target, QUESTION, at_ns, number=number), begun_ns=at_ns)
    marks = exchange.marks
    marks.intended, marks.sent, marks.headers = at_ns, at_ns + 20_000, at_ns + NS_PER_MS
    chunk_ns = marks.first_event = marks.first_token = marks.first_output = at_ns + round(drawn.lognormvariate(18, 1))
    for place in range(CHUNKS):
        chunk_ns += round(drawn.lognormvariate(16, 0.5)) if place else 0
        exchange.deltas.add(chunk_ns, "content", " word")
    marks.last_token = marks.usage = marks.end = chunk_ns
    exchange.usage = Usage(12, CHUNKS)
    return exchange


if __name__ == "__main__":
    main()
