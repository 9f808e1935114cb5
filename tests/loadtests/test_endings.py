"""How runs end: errors sorted, patience, an SLO missed, a stop that stops, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.live import ROOT
from tests.loadtests.conftest import Reference
from tests.loadtests.generator import END_S, Results, group_of, measured_in, plan, prepare, run, started, until
from tests.upstreams import closed_port, scripted_upstream

REFUSALS = {"fault-u06": "429", "fault-400": "4xx", "fault-u07-503": "5xx", "fault-u08": "protocol"}
BREAKS = {
    "fault-u14": "truncated", "fault-u17": "5xx", "fault-u13-early": "truncated", "fault-u26-br": "protocol",
}  # fmt: skip


@pytest.mark.parametrize("faults", [REFUSALS, BREAKS], ids=["refused", "broken"])
async def test_every_error_lands_in_its_class_and_in_no_percentile(faults: dict[str, str], tmp_path: Path) -> None:
    async with scripted_upstream() as up:
        with closed_port() as refusing:
            targets = [(model, up.url, model) for model in faults] + [("closed", refusing, "any")]
            parameters = plan(*targets, users=1, mix="fixed:20/5")
            results = await asyncio.to_thread(run, tmp_path, parameters)
    assert results.code == 1
    for slug, expected in {**faults, "closed": "refused"}.items():
        block = results.block(slug)
        assert set(block["requests"]["by_error"]) == {expected}, slug
        assert block["requests"]["ok"] == 0
        assert block["ttft_ms"]["n"] == 0
        assert block["errors"][0]["count"] == block["requests"]["failed"] > 0


def test_users_who_lose_patience_leave_and_the_server_stops(tmp_path: Path, reference: Reference) -> None:
    model = "ref-50x50+30000ms"
    more: dict[str, Any] = {"behaviour": {"patience_s": 0.2}, "max_requests": 12, "duration_s": 60.0}
    results = run(tmp_path, plan(("ref", reference.url, model), users=4, mix="fixed:20/50", **more))
    counts = results.block("ref")["requests"]
    assert counts["left"] == len(results.records) == 12
    assert counts["failed"] == counts["ok"] == 0
    assert until(lambda: len(reference.streams(model)) == 12)
    assert all(stream["closed_ns"] for stream in reference.streams(model))


def test_a_missed_slo_ends_with_3(tmp_path: Path, reference: Reference) -> None:
    target = ("ref", reference.url, "ref-500x5+60ms")
    results = run(tmp_path, plan(target, users=6, mix="fixed:20/5", slo="ttft:1 at:0.9"))
    if results.summary["generator"]["verdict"] == "valid":
        assert results.code == 3
    assert results.block("ref")["attainment"] == 0.0
    assert results.block("ref")["goodput_per_s"] == 0.0


def test_the_slider_moves_a_running_load_and_stop_means_no_request_a_second_later(
    tmp_path: Path, reference: Reference
) -> None:
    for measurement, folder in measured_in(tmp_path):
        model = f"ref-50x{100 + int(folder.name)}+1ms"
        parameters = plan(("ref", reference.url, model), users=2, mix="fixed:20/20", duration_s=60.0, workers=2)
        with started(folder, parameters) as process:
            assert until(lambda model=model: reference.streams(model))
            (folder / "control.json").write_text('{"users": 8}')
            assert until(lambda: reference.report()["open"] > 5)
            (folder / "control.json").write_text('{"stop": true}')
            stopped_ns = time.monotonic_ns()
            code = process.wait(END_S)
            time.sleep(max(0.0, 1.0 - (time.monotonic_ns() - stopped_ns) / 1e9))
        assert reference.report()["open"] == 0
        results = Results(folder)
        assert code in (0, 4)
        assert results.summary["ended"] == "stopped"
        assert results.block("ref")["requests"]["failed"] == 0  # what we ended ourselves is nobody's failure
        with measurement:
            last_ns = max(stream["arrival_ns"] for stream in reference.streams(model))
            assert last_ns < stopped_ns + 1_000_000_000


@pytest.mark.parametrize("workers", [1, 2])
def test_users_who_are_taken_away_ask_nothing_more_and_hear_their_answers_out(
    workers: int, tmp_path: Path, reference: Reference
) -> None:
    model = f"ref-20x40+{workers}ms"
    parameters = plan(("ref", reference.url, model), users=40, mix="fixed:20/40", duration_s=60.0, workers=workers)
    with started(tmp_path, parameters) as process:
        assert until(lambda: reference.report()["open"] == 40)
        (tmp_path / "control.json").write_text('{"users": 0}')
        assert until(lambda: reference.report()["open"] == 0, 10), "one user a second would go for 40"
        (tmp_path / "control.json").write_text('{"stop": true}')
        assert process.wait(END_S) in (0, 4)
    counts = Results(tmp_path).block("ref")["requests"]
    assert (counts["interrupted"], counts["failed"]) == (0, 0)
    assert counts["ok"] == len(reference.streams(model)) >= 40


def test_a_load_that_is_moved_again_and_again_follows_the_last_wish(tmp_path: Path, reference: Reference) -> None:
    model = "ref-20x10+3ms"
    target = ("ref", reference.url, model)
    with started(tmp_path, plan(target, users=2, mix="fixed:20/10", duration_s=60.0, workers=2)) as process:
        assert until(lambda: reference.streams(model))
        for users in (400, 2, 300, 10):
            (tmp_path / "control.json").write_text(f'{{"users": {users}}}')
            time.sleep(0.5)
        assert until(lambda: reference.report()["open"] > 5)
        assert until(lambda: 5 < reference.report()["open"] <= 10)
        (tmp_path / "control.json").write_text('{"stop": true}')
        assert process.wait(END_S) in (0, 4)
    results = Results(tmp_path)
    assert results.live[-1]["users"] == 10
    assert "Traceback" not in results.log


def test_a_load_is_moved_while_its_users_are_still_coming(tmp_path: Path, reference: Reference) -> None:
    model = "ref-20x40+9ms"
    parameters = plan(("ref", reference.url, model), users=30, mix="fixed:20/40", duration_s=60.0, workers=2)
    with started(tmp_path, {**parameters, "ramp_s": 30.0}) as process:
        assert until(lambda: reference.report()["open"] > 1)
        (tmp_path / "control.json").write_text('{"users": 31}')
        assert until(lambda: reference.report()["open"] == 31, 20), "the first ramp would still go on"
        (tmp_path / "control.json").write_text('{"stop": true}')
        assert process.wait(END_S) in (0, 4)
    assert "Traceback" not in Results(tmp_path).log


@pytest.mark.parametrize(("users", "workers", "most"), [(4, 1, 20), (4, 3, 20), (1, 4, 6)])
def test_a_run_ends_when_it_has_asked_as_often_as_it_may(
    users: int, workers: int, most: int, tmp_path: Path, reference: Reference
) -> None:
    model = f"ref-500x5+{10 * users + workers}ms"
    target = ("ref", reference.url, model)
    more = {"users": users, "workers": workers, "max_requests": most, "duration_s": 60.0}
    results = run(tmp_path, plan(target, mix="fixed:20/5", **more))
    assert results.summary["ended"] == "complete"
    assert results.block("ref")["requests"]["ok"] == len(reference.streams(model)) == most
    last_us = max(record["marks_us"]["end"] for record in results.records)
    assert results.summary["measured_s"] == pytest.approx(last_us / 1e6, abs=0.001), "not what came after it"
    assert results.summary["duration_s"] < 30


def test_pairs_keep_within_what_a_run_may_ask_and_stay_whole(tmp_path: Path, reference: Reference) -> None:
    targets = [(slug, reference.url, f"ref-500x5+{number}ms") for slug, number in (("one", 71), ("other", 72))]
    more = {"users": 4, "max_requests": 7, "duration_s": 60.0}
    results = run(tmp_path, plan(*targets, mode="pairs", mix="fixed:20/5", **more))
    assert results.summary["ended"] == "complete"
    assert [len(reference.streams(model)) for _, _, model in targets] == [3, 3]
    assert results.summary["duration_s"] < 30


@pytest.mark.parametrize("mode", ["users", "pairs"])
def test_a_backend_that_refuses_at_once_is_asked_again_after_a_breath_and_nobody_is_late_for_that(
    mode: str, tmp_path: Path
) -> None:
    for measurement, folder in measured_in(tmp_path):
        with closed_port() as refusing:
            targets = [(slug, refusing, "any") for slug in ("one", "two")]
            results = run(folder, plan(*targets, users=2, mode=mode, mix="fixed:20/5"))
        for slug in ("one", "two"):
            intended = sorted(
                (record["user"], record["marks_us"]["intended"])
                for record in results.records
                if record["backend"] == slug
            )
            waits = [b - a for (user, a), (same, b) in pairwise(intended) if user == same]
            assert len(waits) > 4
            assert min(waits) >= 50_000
        with measurement:
            late_us = median(record["late_us"] for record in results.records)
            assert late_us < 40_000, "the breath itself is not the generator's lateness"


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "loadtests", *sys.argv[1:]], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_parent_leaves_no_orphan_and_its_results(tmp_path: Path, reference: Reference) -> None:
    model = "ref-50x20+3ms"
    parameters = plan(("ref", reference.url, model), users=4, mix="fixed:20/20", duration_s=60.0, workers=2)
    command = [sys.executable, "-c", PARENT, *prepare(tmp_path, parameters)]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    try:
        assert until(lambda: len(reference.streams(model)) > 4)
        assert len(group_of(group)) == 3
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert until(lambda: not group_of(group), 30)
        assert until(lambda: reference.report()["open"] == 0)
    finally:
        for pid in group_of(group):
            os.kill(pid, signal.SIGKILL)
    results = Results(tmp_path)
    assert results.summary["ended"] == "interrupted"
    assert results.block("ref")["requests"]["ok"] > 0


def test_a_lost_worker_is_said_and_does_not_pass(tmp_path: Path, reference: Reference) -> None:
    model = "ref-50x20+6ms"
    parameters = plan(("ref", reference.url, model), users=4, mix="fixed:20/20", duration_s=8.0, workers=2)
    with started(tmp_path, parameters) as process:
        assert until(lambda: len(reference.streams(model)) > 4)
        workers = [pid for pid in group_of(process.pid) if pid != process.pid]
        os.kill(workers[0], signal.SIGKILL)
        code = process.wait(END_S)
    results = Results(tmp_path)
    assert code == 4, results.log
    for generator in (results.summary["generator"], results.block("ref")["generator"]):
        assert any("lost" in reason for reason in generator["reasons"])
        assert generator["verdict"] == "generator-limited"
    assert results.block("ref")["requests"]["ok"] > 0
