"""Several generator processes: what they hand on adds up exactly, and they share one schedule and its caps."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import orjson
import pytest

from loadtests.collector import Collector
from loadtests.exchange import Exchange, Job
from loadtests.registry import Registry
from tests.live import ROOT, free_port
from tests.loadtests.conftest import Reference
from tests.loadtests.generator import END_S, Results, plan, prepare, run, start
from webapp.clock import now_ns
from webapp.core.loadplan import Plan, Target
from webapp.core.mixes import Question
from webapp.core.openai import Usage

TARGETS = tuple(Target(slug, "http://127.0.0.1:9/v1", slug) for slug in ("a", "b"))
PLAN = Plan(TARGETS, duration_s=60, slo="ttft:400")


def answered(number: int, t0_ns: int) -> tuple[Exchange, str]:
    """Return a made-up exchange, the same for the same number, and how it ended."""
    drawn = random.Random(number)
    at_ns = t0_ns + number * 20_000_000
    exchange = Exchange(Job(TARGETS[number % 2], Question("?", 5), at_ns, number=number), begun_ns=at_ns)
    marks = exchange.marks
    marks.intended, marks.sent = at_ns, at_ns + drawn.randrange(10**6)
    chunk_ns = marks.first_token = marks.first_output = marks.sent + drawn.randrange(10**9)
    for _ in range(drawn.randrange(1, 9)):
        exchange.deltas.add(chunk_ns, "content", "word ")
        chunk_ns += drawn.randrange(10**8)
    marks.last_token, marks.end = exchange.deltas.times_ns[-1], chunk_ns
    exchange.usage = Usage(5, len(exchange.deltas))
    return exchange, "left" if number % 17 == 0 else "done"


def counted(workers: int) -> Collector:
    """Have so many registries count 2,000 exchanges in turn and hand them on as Locust's messages do."""
    t0_ns = now_ns()
    collector = Collector(PLAN, None, t0_ns, 0.0, workers)
    registries = [Registry(PLAN, worker, workers) for worker in range(workers)]
    for registry in registries:
        registry.t0_ns = t0_ns
    for number in range(2000):
        registry = registries[number % workers]
        exchange, outcome = answered(number, t0_ns)
        registry.started_one(exchange)
        registry.ended_one(exchange, outcome)
        if number % 97 == 0:
            hand_on(collector, registry)
    for registry in registries:
        hand_on(collector, registry)
    return collector


def hand_on(collector: Collector, registry: Registry) -> None:
    taken = msgpack.loads(msgpack.dumps(registry.take()), strict_map_key=False)
    collector.absorb(str(registry.worker), taken)


@pytest.mark.parametrize("workers", [2, 3])
def test_what_workers_hand_on_is_exactly_what_one_process_counts(workers: int) -> None:
    alone, together = counted(1).stats, counted(workers).stats
    assert alone.backend("a").histogram("icl").n > 1000
    assert together.as_data() == alone.as_data()


def exit_codes(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all of them; none outlives the wait."""
    try:
        return [process.wait(END_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def master_and_workers(folder: Path, parameters: dict[str, Any], count: int = 2) -> Results:
    """Start Locust by hand, as for several hosts: a master, and workers that know it by its address."""
    file, out = prepare(folder, parameters)
    port = str(free_port())
    locust = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
    master = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", str(count)]
    master += ["-u", str(count), "-r", "100", "--exit-code-on-error", "0"]
    worker = ["--worker", "--master-host", "127.0.0.1", "--master-port", port]
    env = {**os.environ, "SPLITSECOND_LOAD_FILE": file, "SPLITSECOND_LOAD_OUT": out}
    with open(folder / "log", "wb") as log:
        commands = [master, *[worker] * count]
        processes = [subprocess.Popen([*locust, *part], cwd=ROOT, env=env, stdout=log, stderr=log) for part in commands]
        codes = exit_codes(processes)
    assert codes[1:] == [0] * count, Results(folder).log
    return Results(folder, codes[0])


def test_a_master_and_two_workers_walk_one_schedule(tmp_path: Path, reference: Reference) -> None:
    model = "ref-500x5+5ms"
    schedule = {"kind": "poisson", "rates": [[0, 30]]}
    parameters = plan(("ref", reference.url, model), mode="rate", schedule=schedule, mix="uniform:5-50/2-5", workers=2)
    results = master_and_workers(tmp_path, parameters)
    assert results.code in (0, 4), results.log
    records = results.records
    numbers = sorted(record["number"] for record in records)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 15
    block = results.block("ref")
    assert block["requests"]["ok"] == len(records)
    for name in ("input_tokens", "output_tokens"):
        values = [record[name] for record in records]
        assert (block[name]["n"], block[name]["max"]) == (len(values), max(values))
        assert block[name]["mean"] == pytest.approx(sum(values) / len(values), rel=1e-6)
    first_us = [record["marks_us"]["first_token"] - record["marks_us"]["sent"] for record in records]
    assert block["ttft_ms"]["n"] == len(first_us)
    assert block["ttft_ms"]["mean"] == pytest.approx(sum(first_us) / len(first_us) / 1000, abs=0.002)


def test_two_runs_of_several_processes_at_once_do_not_mix(tmp_path: Path, reference: Reference) -> None:
    models = ("ref-500x5+7ms", "ref-500x5+8ms")
    more: dict[str, Any] = {"mode": "rate", "schedule": {"kind": "constant", "rates": [[0, 5]]}, "mix": "fixed:20/5"}
    more |= {"workers": 2, "max_requests": 8, "duration_s": 30}
    folders = [tmp_path / model for model in models]
    plans = [plan(("ref", reference.url, model), **more) for model in models]
    codes = exit_codes([start(folder, each) for folder, each in zip(folders, plans, strict=True)])
    for folder, model, code in zip(folders, models, codes, strict=True):
        results = Results(folder, code)
        assert results.code in (0, 4), results.log
        assert len(results.records) == len(reference.streams(model)) == 8


def test_users_who_come_one_by_one_take_no_more_of_a_generator_than_users_who_come_at_once(
    tmp_path: Path, reference: Reference
) -> None:
    def cores(name: str, **more: Any) -> float:
        target = ("ref", reference.url, "ref-50x20+4ms")
        results = run(tmp_path / name, plan(target, users=8, mix="fixed:20/20", duration_s=3.0, workers=2, **more))
        assert results.block("ref")["requests"]["ok"] > 8
        return float(results.summary["generator"]["cpu_cores"])

    assert cores("one by one", ramp_s=2.5) < 2 * cores("at once"), "what Locust does for each of them stops the reading"


def test_workers_keep_the_caps_together(tmp_path: Path, reference: Reference) -> None:
    schedule = {"kind": "constant", "rates": [[0, 5]], "spikes": [[0.3, 60]]}
    target = ("ref", reference.url, "ref-500x3+6ms")
    parameters = plan(
        target, mode="rate", schedule=schedule, mix="fixed:20/3", workers=2, max_requests=8, duration_s=30
    )
    results = master_and_workers(tmp_path, parameters)
    assert len(results.records) == 8
    assert results.summary["duration_s"] < 15
    over = orjson.dumps({**parameters, "users": 10**6, "mode": "users", "caps": {"users": 10**9}})
    (tmp_path / "params.json").write_bytes(over)
    command = [sys.executable, "-m", "loadtests", str(tmp_path / "params.json"), str(tmp_path / "more")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=END_S)
    assert done.returncode != 0
    assert "At most 1000 users" in done.stderr
