"""What the generator reports against a server that writes the time of emission into each token."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median

from tests.live import LiveApp
from tests.loadtests.conftest import Reference
from tests.loadtests.generator import END_S, STAMP, Results, measured_in, plan, run, started, until

START_MS, GAP_MS, TOKENS = 150, 25, 30


def test_arrivals_are_read_and_not_guessed(tmp_path: Path, reference: Reference) -> None:
    model = f"ref-{1000 // GAP_MS}x{TOKENS}+{START_MS}ms~"
    parameters = plan(("ref", reference.url, model), users=10, mix="fixed:20/100", detail="text")
    for measurement, folder in measured_in(tmp_path):
        results = run(folder, parameters)
        records = [record for record in results.records if record["outcome"] == "done"]
        assert len(records) >= 10
        lags_ms, gap_errors_ms, ttfts_ms = [], [], []
        for record in records:
            emitted = [int(stamp) for stamp in STAMP.findall(record["text"])]
            first = results.at_ns(record["marks_us"]["first_token"])
            arrived = list(accumulate([first, *(gap * 1000 for gap in record["gaps_us"])]))
            assert len(emitted) == len(arrived) == TOKENS
            lags = [(at - then) / 1e6 for at, then in zip(arrived, emitted, strict=True)]
            assert min(lags) > -0.1  # nothing arrives before it was written, to the rounding of the marks
            lags_ms += lags
            truth = [b - a for a, b in pairwise(emitted)]
            gaps = zip(record["gaps_us"], truth, strict=True)
            gap_errors_ms += [abs(gap_us * 1000 - gap_ns) / 1e6 for gap_us, gap_ns in gaps]
            ttfts_ms.append((record["marks_us"]["first_token"] - record["marks_us"]["sent"]) / 1000)
            assert record["output_tokens"] == TOKENS
            assert record["tokens_source"] == "usage"
        with measurement:
            assert median(lags_ms) < GAP_MS / 4  # Locust's own reader is late by a multiple of the gap
            assert median(gap_errors_ms) < GAP_MS / 4
            assert START_MS <= median(ttfts_ms) < START_MS + 2 * GAP_MS
            assert abs(results.block("ref")["tpot_ms"]["p50"] - GAP_MS) < GAP_MS / 10


def test_the_figures_match_the_simulators_own_stamps(tmp_path: Path, live_app: LiveApp) -> None:
    model = "h100x2-llama-70b"
    target = (model, f"{live_app.sim_url}/v1", model)
    for measurement, folder in measured_in(tmp_path):
        results = run(folder, plan(target, users=4, mix="fixed:2000/30", duration_s=2.5))
        late_ms, tpot_off = [], []
        for record in results.records:
            if record["outcome"] != "done":
                continue
            stamps = next(times["emitted"] for times in record["server_ms"].values() if "emitted" in times)
            sent_us, first_us = (record["marks_us"][mark] for mark in ("sent", "first_token"))
            late_ms.append((first_us - sent_us) / 1e3 - (stamps["first_ns"] - stamps["arrived_ns"]) / 1e6)
            tokens = record["output_tokens"] - stamps["first_tokens"]
            tpot_off.append(record["tpot_us"] * 1e3 * tokens / (stamps["last_ns"] - stamps["first_ns"]) - 1)
        assert len(late_ms) >= 4
        assert results.block(model)["ttft_ms"]["p50"] > 100, "a machine that computes prompts makes others wait"
        assert median(late_ms) > -1
        with measurement:
            assert median(late_ms) < 10
            assert abs(median(tpot_off)) < 0.02


def test_a_simulator_whose_host_held_it_up_is_named_in_the_result(tmp_path: Path, live_app: LiveApp) -> None:
    model = "h100x2-llama-70b"
    target = {"slug": model, "url": f"{live_app.sim_url}/v1", "model": model, "metrics_model": model}
    target["metrics_url"] = f"{live_app.sim_url}/metrics"
    with started(tmp_path, {**plan(users=4, mix="fixed:20/30", duration_s=5.0), "targets": [target]}) as process:
        assert until(lambda: (tmp_path / "live.jsonl").exists() and (tmp_path / "requests.jsonl").stat().st_size)
        os.kill(live_app.simulator.pid, signal.SIGSTOP)
        try:
            time.sleep(0.3)
        finally:
            os.kill(live_app.simulator.pid, signal.SIGCONT)
        results = Results(tmp_path, process.wait(END_S))
    found = results.block(model)
    late_ms = found["server"]["most_late_ms"]
    assert late_ms > 240  # of 300, less a step, which the prompts of four users lengthen to some 40
    said = re.search(r"The simulator ran up to (\d+) ms behind its schedule", " ".join(found["warnings"]))
    assert said
    assert abs(int(said[1]) - late_ms) <= 1


def test_a_slow_reader_changes_nothing_but_its_own_pace(tmp_path: Path, reference: Reference) -> None:
    model = "ref-maxx400"
    slow = {"read_bytes_per_s": 60_000}
    results = run(
        tmp_path, plan(("ref", reference.url, model), users=1, mix="fixed:20/400", behaviour=slow, duration_s=0.5)
    )
    whole = [record["marks_us"] for record in results.records if record["outcome"] == "done"]
    assert whole
    assert all(marks["last_token"] - marks["first_token"] > 500_000 for marks in whole)
