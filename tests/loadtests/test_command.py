"""`manage.py load` against the running app: the files and the exit code that it promises, and what it refuses."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from io import StringIO
from math import inf
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from tests.live import ROOT, LiveApp
from tests.loadtests.generator import END_S, ending, environment_of, until
from webapp.core.loadplan import Plan, Target
from webapp.management.commands.load import Command, _wishes
from webapp.services.loadplans import Refusal, Where, Wishes, plan

BACKEND = "wse3-llama-70b"
BLOCK = {
    "requests", "ttft_ms", "ttfo_ms", "tpot_ms", "icl_ms", "e2e_ms", "ttft_sched_ms", "e2e_sched_ms", "attainment",
    "output_tokens_per_s", "requests_per_s", "goodput_per_s", "generator", "slo", "versions",
}  # fmt: skip


def load(app: LiveApp, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "load", *arguments]
    env = environment_of(app.env, app.url)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def paired(live_app: LiveApp, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A paired comparison of a fast and a slow backend; several tests look at what it left."""
    out = tmp_path_factory.mktemp("paired")
    arguments = ("--backend", BACKEND, "--backend", "h100x2-llama-70b", "--users", "4", "--mix", "fixed:20/12")
    return out, load(live_app, "ab", *arguments, "--duration", "5", "--slo", "e2e:60000", "--out", str(out))


def test_the_summary_has_the_promised_shape_and_the_exit_code_stands_in_it(paired: tuple[Path, Any]) -> None:
    out, done = paired
    summary = orjson.loads((out / "summary.json").read_bytes())
    assert done.returncode == summary["exit_code"], done.stdout + done.stderr
    assert done.returncode in (0, 4), done.stdout
    assert set(summary["backends"]) == {BACKEND, "h100x2-llama-70b"}
    for block in summary["backends"].values():
        assert set(block) >= BLOCK
        assert set(block["ttft_ms"]) == {"n", "mean", "p50", "p90", "p95", "p99", "max"}
        assert set(block["requests"]) >= {"ok", "failed", "by_error"}
    assert {"hub_lag_ms", "send_late_ms", "verdict"} <= set(summary["generator"])
    assert summary["versions"]["locust"]


def test_the_faster_backend_is_found_in_seconds(paired: tuple[Path, Any]) -> None:
    summary = orjson.loads((paired[0] / "summary.json").read_bytes())
    whole = next(pair for pair in summary["pairs"] if pair["figure"] == "e2e")
    assert (whole["a"], whole["result"]) == (BACKEND, "A faster"), whole
    assert whole["interval_ms"][1] < 0


def test_the_report_stands_alone(paired: tuple[Path, Any]) -> None:
    report = (paired[0] / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "<script" not in report
    assert "default-src &#x27;none&#x27;" in report
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", report)
    assert report.count("SIMULATED") >= 2


def test_vllms_shape_has_one_line_per_backend(paired: tuple[Path, Any]) -> None:
    lines = [orjson.loads(line) for line in (paired[0] / "vllm.json").read_bytes().splitlines()]
    assert [line["label"] for line in lines] == [BACKEND, "h100x2-llama-70b"]
    for line in lines:
        assert line["completed"] > 0
        assert (line["p99_ttft_ms"] or inf) >= line["median_ttft_ms"] > 0
        assert (line["p99_ttft_ms"] is None) == (line["completed"] < 100)
        assert {"mean_itl_ms", "std_tpot_ms", "median_e2el_ms", "output_throughput"} <= set(line)


def test_a_run_that_is_broken_off_does_not_pass_and_says_after_how_long(live_app: LiveApp, tmp_path: Path) -> None:
    arguments = ["--backend", BACKEND, "--users", "2", "--mix", "fixed:20/5", "--duration", "60", "--slo", "e2e:60000"]
    command = [sys.executable, "manage.py", "load", *arguments, "--warmup", "0", "--out", str(tmp_path)]
    log = tmp_path / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment_of(live_app.env, live_app.url), stdout=output)
    with ending(process, log):
        requests = tmp_path / "requests.jsonl"
        assert until(lambda: requests.exists() and requests.read_bytes().count(b"\n") > 30)
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 4
    summary = orjson.loads((tmp_path / "summary.json").read_bytes())
    assert (summary["ended"], summary["exit_code"]) == ("stopped", 4)
    said = f"Stopped after {summary['duration_s']:.0f} of 60 s."
    assert log.read_text().count(said) == (tmp_path / "report.html").read_text().count(said) == 1
    assert "Pass." not in log.read_text()


def test_a_search_is_answered_in_one_sentence_and_shown_in_the_page(live_app: LiveApp, tmp_path: Path) -> None:
    arguments = ("--backend", BACKEND, "--users", "1", "--max-users", "2", "--mix", "fixed:20/5", "--slo", "ttft:60000")
    done = load(live_app, "search", *arguments, "--duration", "2", "--out", str(tmp_path))
    assert done.returncode in (0, 4), done.stdout + done.stderr
    summary = orjson.loads((tmp_path / "summary.json").read_bytes())
    sentence = summary["search"][BACKEND]["sentence"]
    assert sentence in done.stdout
    with urllib.request.urlopen(f"{live_app.url}/load/") as answer:
        address = re.search(r'href="(/load/[^"]+/)">How many users', answer.read().decode())
    assert address
    with urllib.request.urlopen(live_app.url + address[1]) as answer:
        page = answer.read().decode()
    assert sentence in page
    assert "chart/how-many-users.json" in page


def test_a_series_of_which_nothing_was_measured_leaves_no_results_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise Refusal("The load generator failed.")

    monkeypatch.setattr(Command, "_run", refused)
    (tmp_path / "summary.json").write_text("{}")
    plan = Plan((Target("a", "http://127.0.0.1:9/v1", "a"),), "sweep", loads=(1.0, 2.0))
    with pytest.raises(Refusal, match="Nothing was measured"):
        Command(stdout=StringIO())._series(plan, tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.json"]


def test_prompts_of_a_file_are_named_so_that_runs_of_two_files_can_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('"Hello"\n')
    arguments = ["--backend", BACKEND, "--out", str(tmp_path), "--prompts", str(tmp_path / "own.jsonl")]
    options = Command().create_parser("manage.py", "load").parse_args(arguments)
    assert _wishes(vars(options)).mix == "file:own.jsonl"


def test_what_cannot_be_run_is_refused_in_one_sentence(rows: None, tmp_path: Path) -> None:
    one, file, picture = ["--backend", BACKEND], tmp_path / "file", tmp_path / "picture"
    file.touch()
    picture.write_bytes(b"\x89PNG\xff")
    for arguments, sentence in (
        (["--backend", "nobody"], "There is no backend 'nobody'"),
        ([], "Name a backend"),
        ([*one, "--users", "2.5"], "whole number"),
        ([*one, "--rate", "nan"], "wants a number"),
        ([*one, "--trace", str(tmp_path / "none")], "cannot be read: No such file or directory"),
        ([*one, "--prompts", str(picture)], "is not text in UTF-8"),
        ([*one, "--trace", str(file)], "is empty"),
        ([*one, "--prompts", str(tmp_path / "own.jsonl"), "--mix", "code"], "Give one of --prompts and --mix"),
        ([*one, "--users", "0"], "--users wants at least one"),
        (["sweep", *one, "--users", "0,4"], "--users wants at least one"),
        ([*one, "--users", "2", "--rate", "2"], "Give one of --users and --rate"),
        ([*one, "--stages", "5:10s", "--duration", "5"], "leave --duration out"),
        (["search", *one], "A search needs an SLO"),
        (["search", *one, "--slo", "voice", "--rate", "3"], "leave --rate out"),
        (["sweep", *one], "A sweep needs"),
        (["report"], "holds no results"),
    ):
        with pytest.raises(CommandError, match=sentence) as refused:
            call_command("load", *arguments, "--out", str(tmp_path), "--wire", "direct")
        assert refused.value.returncode == 2
    with pytest.raises(CommandError, match="Nothing can be written into"):
        call_command("load", *one, "--out", str(file))
    where = Where("http://127.0.0.1:8000", settings.SIMULATOR_URL)
    for wishes, sentence in (
        (Wishes((BACKEND,), mix="mud"), "There is no mix 'mud'"),
        (Wishes((BACKEND,), users=100_000), "At most 1000 users"),
        (Wishes((BACKEND,), slo="speed:1"), "There is no SLO"),
        (Wishes((BACKEND,), rate=10_000.0), "requests per second"),
        (Wishes((BACKEND,), spike="1001@1"), "at most 1,000 requests within a second"),
        (Wishes((BACKEND,), trace="0\n" + "".join(f"{1 + k / 1001}\n" for k in range(1001))), "within a second"),
        (Wishes((BACKEND,), spike="inf@1"), "--spike wants"),
        (Wishes((BACKEND,), spike="2.5@1"), "--spike wants"),
        (Wishes((BACKEND,), spike="10@99", duration_s=5), "--spike 10@99 lies beyond the run, which lasts 5 s"),
        (Wishes((BACKEND,), users=6, spike="5@2"), "leave it or --users out"),
        (Wishes((BACKEND,), stages="4:3s,8:3s", spike="5@2"), "leave it or --stages out"),
        (Wishes((BACKEND,), trace="0\n1\n", spike="5@0"), "--spike adds nothing to a --trace"),
        (Wishes((BACKEND,), wire="ws", read_bytes_per_s=500.0), "--slow-readers read over --wire sse or direct"),
        (Wishes((BACKEND,), reconnect_s=1.0), "--reconnect needs --wire ws, not sse"),
        (Wishes((BACKEND,), prompts='"Hello"', turns=3), "leave --turns out"),
        (Wishes((BACKEND,), mix="scenario:chat", turns=3), "leave --turns out"),
        (Wishes((BACKEND,), slo="ttft:100 ttft:200"), "ttft stands there twice"),
        (Wishes((BACKEND,), kind="sweep", users=1, loads=(1.0, 1.0)), "A sweep names each of its loads once"),
        (Wishes((BACKEND,), duration_s=1e9), "A run lasts"),
        (Wishes((BACKEND,), patience_s=float("nan")), "has to be finite"),
        (Wishes((BACKEND,), grace_s=-1.0), "cannot be negative"),
        (Wishes((BACKEND,), max_requests=0), "A run has 1 to 200,000 requests"),
    ):
        with pytest.raises(Refusal, match=sentence):
            plan(wishes, where)
