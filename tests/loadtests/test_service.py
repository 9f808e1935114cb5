"""Load runs as the page starts them: supervised, steered, stopped, and kept whatever happens to the generator."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.conf import settings

from tests.hostwatch import measurements
from tests.live import LiveApp
from tests.loadtests.conftest import Reference
from tests.loadtests.generator import END_S, group_of, until
from webapp import drain
from webapp.core.loadplan import Plan, Target
from webapp.core.paired import FEW
from webapp.models import Backend, LoadRun
from webapp.services import load, loadjob, loadplans, loadprocess, loadreport, loadverdict
from webapp.services.loadhost import whereabouts
from webapp.services.loadjob import Job
from webapp.services.loadplans import Refusal, Where, Wishes

WHERE = Where("http://127.0.0.1:8000", "http://127.0.0.1:8001/v1")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "VAR_DIR", tmp_path)
    monkeypatch.setattr(loadreport, "write_apart", lambda _: None)  # another process, tested by the command


def endless(reference: Reference, model: str) -> Plan:
    target = Target("ref", reference.url, model)
    return Plan((target,), wire="direct", users=3, duration_s=60, warmup_s=0, cooldown_s=0, mix="fixed:20/20")


def test_a_killed_generator_leaves_its_partial_results_and_says_so(rows: None, reference: Reference) -> None:
    model = "ref-50x20+4ms"
    run = load.start(endless(reference, model))
    requests = Path(run.folder) / "requests.jsonl"
    assert until(lambda: requests.exists() and requests.read_bytes().count(b"\n") > 3)
    group = LoadRun.objects.get(id=run.id).group
    assert group is not None
    loadprocess.kill_group(group, signal.SIGKILL)
    assert load.wait(run.id, END_S)
    assert not group_of(group)
    row = LoadRun.objects.get(id=run.id)
    assert row.state == LoadRun.State.INTERRUPTED
    assert row.summary["backends"]["ref"]["requests"]["ok"] > 0
    assert row.exit_code == 4
    assert row.summary["versions"]["locust"] == row.summary["backends"]["ref"]["versions"]["locust"] != ""
    assert row.created_at.timestamp() < row.summary["started_at"] < row.ended_at.timestamp()
    vllm = orjson.loads((Path(run.folder) / "vllm.json").read_bytes())
    assert vllm["completed"] == row.summary["backends"]["ref"]["requests"]["ok"]
    assert "ended before its time" in loadverdict.verdict(row.summary)
    assert "Interrupted" in row.note


def killed_pairs(reference: Reference) -> list[dict[str, Any]]:
    """Compare two backends, 73 and 123 ms to the first token, kill the run and return what it has kept."""
    one, other = (
        Target(slug, reference.url, f"ref-200x5+{number}ms") for slug, number in (("one", 73), ("other", 123))
    )
    run = load.start(replace(endless(reference, ""), kind="ab", mode="pairs", targets=(one, other)).checked())
    assert until(lambda: load.latest(run).get("pairs", [{"n": 0}])[0]["n"] >= FEW)
    group = LoadRun.objects.get(id=run.id).group
    assert group is not None
    loadprocess.kill_group(group, signal.SIGKILL)
    assert load.wait(run.id, END_S)
    pairs: list[dict[str, Any]] = LoadRun.objects.get(id=run.id).summary["pairs"]
    return pairs


def test_a_killed_paired_comparison_keeps_its_differences(rows: None, reference: Reference) -> None:
    for measurement in measurements():
        kept = [(pair["figure"], pair["result"]) for pair in killed_pairs(reference)][:2]
        with measurement:
            assert kept == [("ttft", "A faster"), ("e2e", "A faster")]


def test_a_run_is_followed_and_stopped(rows: None, reference: Reference) -> None:
    run = load.start(endless(reference, "ref-50x20+5ms"))
    assert until(lambda: any(line["backends"]["ref"]["requests_per_s"] for line in load.live(run)[0]))
    lines, offset = load.live(run)
    assert lines[0]["backends"]["ref"]["running"] + lines[0]["backends"]["ref"]["waiting"] <= 3
    assert load.live(run, offset)[1] >= offset
    with pytest.raises(Refusal):
        load.delete(run)
    assert load.stop(run.id)
    assert load.wait(run.id, END_S)
    row = LoadRun.objects.get(id=run.id)
    assert (row.state, row.exit_code in (0, 4)) == (LoadRun.State.STOPPED, True)
    assert row.charts["distribution"]["ref"]["ttft"]
    load.delete(row)
    assert not Path(run.folder).exists()
    assert not load.stop(run.id)


def test_a_stop_before_the_generator_has_begun_lets_no_request_leave(rows: None, reference: Reference) -> None:
    model = "ref-50x20+6ms"
    run = load.start(endless(reference, model))
    assert load.stop(run.id)
    assert load.wait(run.id, END_S)
    assert reference.streams(model) == []
    assert LoadRun.objects.get(id=run.id).state == LoadRun.State.STOPPED


def sweep(reference: Reference, model: str, seconds: float = 2) -> Plan:
    plan = replace(endless(reference, model), kind="sweep", loads=(1.0, 2.0, 3.0), duration_s=seconds, grace_s=2)
    return plan.checked()


def test_a_sweep_is_followed_from_run_to_run_and_keeps_its_curve(rows: None, reference: Reference) -> None:
    run = load.start(sweep(reference, "ref-50x20+7ms"))
    assert until(lambda: len(LoadRun.objects.get(id=run.id).summary.get("sweep", ())) == 1)
    assert LoadRun.objects.get(id=run.id).state == LoadRun.State.RUNNING
    assert load.wait(run.id, END_S)
    row = LoadRun.objects.get(id=run.id)
    assert row.state == LoadRun.State.DONE
    assert [point["load"] for point in row.summary["sweep"]] == [1, 2, 3]
    lines, _ = load.live(row)
    assert [line["t_s"] for line in lines] == sorted(line["t_s"] for line in lines)
    assert {(line["step"]["number"], line["step"]["load"]) for line in lines} == {(1, 1), (2, 2), (3, 3)}
    assert load.latest(row) == lines[-1]


def test_a_sweep_that_is_stopped_begins_no_further_run_and_keeps_its_points(rows: None, reference: Reference) -> None:
    model = "ref-50x20+8ms"

    def second_has_answered(run: LoadRun) -> bool:
        line = load.latest(run)
        return bool(line) and line["step"]["number"] == 2 and line["backends"]["ref"]["requests_per_s"] > 0

    for measurement in measurements():
        run = load.start(sweep(reference, model, seconds=4))
        assert until(lambda run=run: second_has_answered(run))
        assert load.stop(run.id)
        time.sleep(1)
        before = len(reference.streams(model))
        assert load.wait(run.id, END_S)
        row = LoadRun.objects.get(id=run.id)
        assert row.state == LoadRun.State.STOPPED
        with measurement:
            assert len(reference.streams(model)) == before
            assert [point["load"] for point in row.summary["sweep"]] == [1, 2]


def test_a_sweep_whose_generator_is_killed_keeps_what_it_had_and_says_so(rows: None, reference: Reference) -> None:
    run = load.start(sweep(reference, "ref-50x20+9ms"))
    assert until(lambda: load.latest(run).get("step", {}).get("number") == 2)
    group = LoadRun.objects.get(id=run.id).group
    assert group is not None
    loadprocess.kill_group(group, signal.SIGKILL)
    assert load.wait(run.id, END_S)
    row = LoadRun.objects.get(id=run.id)
    assert (row.state, row.summary["sweep"][0]["load"]) == (LoadRun.State.INTERRUPTED, 1)
    assert len(row.summary["sweep"]) < 3
    assert "what had been measured is kept" in row.note


def test_a_run_that_breaks_off_for_whatever_reason_does_not_go_on_for_ever(
    rows: None, reference: Reference, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Job) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(Job, "run", broken)
    run = load.start(endless(reference, "ref-50x20+11ms"))
    assert load.wait(run.id, END_S)
    row = LoadRun.objects.get(id=run.id)
    assert (row.state, row.note) == (LoadRun.State.FAILED, "The run broke off: no such thing.")
    assert "broke off" in caplog.text
    load.delete(row)


def test_a_report_that_takes_too_long_is_missed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()  # of the fixture that writes none
    monkeypatch.setattr(loadreport, "REPORT_S", 0.001)
    loadreport.write_apart(tmp_path)
    assert "was not written" in caplog.text


def test_a_report_that_is_being_written_ends_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()  # of the fixture that writes none
    begun = tmp_path / "begun"
    program = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)"
    monkeypatch.setattr(loadreport, "REPORT", [sys.executable, "-c", program])
    writing = threading.Thread(target=loadreport.write_apart, args=(tmp_path,))
    try:
        writing.start()
        assert until(begun.exists)
        drain.begin()
        writing.join(END_S)
        assert not writing.is_alive()
        assert "exit code -15" in caplog.text
    finally:
        drain.reset()


def test_a_run_whose_server_is_gone_is_ended_at_the_next_start(rows: None, reference: Reference) -> None:
    row = load.make_row(endless(reference, "ref"), asked_by="page")
    LoadRun.objects.filter(id=row.id).update(owner=load.OWNER.rpartition(":")[0] + ":1")
    assert load.end_orphans() == 1
    assert LoadRun.objects.get(id=row.id).state == LoadRun.State.FAILED  # it had measured nothing yet


@pytest.mark.parametrize(("word", "ends"), [("loadtests", True), ("something-else", False)])
def test_a_group_whose_number_has_come_round_again_is_left_alone(
    word: str, ends: bool, rows: None, reference: Reference
) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)", word]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        row = load.make_row(endless(reference, "ref"), asked_by="page")
        LoadRun.objects.filter(id=row.id).update(owner=load.OWNER.rpartition(":")[0] + ":1", group=process.pid)
        assert load.end_orphans() == 1
        assert until(lambda: process.poll() is not None, 5 if ends else 0.3) is ends
    finally:
        process.kill()
        process.wait()


def test_no_third_run_begins_while_two_go_on(rows: None, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_running", {"one": None, "two": None})
    with pytest.raises(Refusal, match="2 load runs are going on already"):
        load.start(endless(reference, "ref"))
    assert not LoadRun.objects.exists()


def test_deleting_a_run_of_the_command_line_leaves_its_folder_alone(
    rows: None, reference: Reference, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    load.delete(load.make_row(endless(reference, "ref"), asked_by="cli", folder=tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"
    assert not LoadRun.objects.exists()


def test_a_generator_that_goes_on_beyond_its_time_is_ended_and_said_to_have_hung(
    rows: None, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loadjob, "GRACE_S", -endless(reference, "").duration_s - 30)
    run = load.start(endless(reference, "ref-50x20+12ms"))
    assert load.wait(run.id, 20)
    assert LoadRun.objects.get(id=run.id).note == "The load generator hung and was ended."


def test_a_recording_is_loaded_through_the_app_and_has_no_url_of_its_own(rows: None) -> None:
    backend(kind="recording", base_url="recordings/x.json")
    found, _ = loadplans.plan(Wishes(("x",)), WHERE)
    assert found.targets[0].url == "http://127.0.0.1:8000/v1"
    with pytest.raises(Refusal, match="no URL of its own"):
        loadplans.plan(Wishes(("x",), wire="direct"), WHERE)


def test_an_app_with_other_backends_is_refused_before_any_request(rows: None, live_app: LiveApp) -> None:
    with pytest.raises(Refusal, match="knows no backend 'nobody'"), whereabouts(["nobody"], "sse", live_app.url):
        pass
    with pytest.raises(Refusal, match="is not this web app"), whereabouts(["x"], "sse", live_app.url + "/healthz?"):
        pass


def backend(**fields: str) -> Backend:
    return Backend.objects.create(slug="x", label="X", model="m", **fields)


def test_only_this_machine_and_listed_origins_may_be_loaded(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    backend(base_url="https://api.example.com/v1")
    for wire in ("sse", "direct"):
        with pytest.raises(Refusal, match="LOAD_TARGETS"):
            loadplans.plan(Wishes(("x",), wire=wire), WHERE)
    monkeypatch.setattr(settings, "LOAD_TARGETS", ["https://api.example.com"], raising=False)
    plan, _ = loadplans.plan(Wishes(("x",), wire="direct"), WHERE)
    assert plan.targets[0].url == "https://api.example.com/v1"


def test_a_key_travels_in_the_environment_and_in_no_file(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-and-long")
    backend(base_url="http://127.0.0.1:9/v1", key_ref="env:MY_KEY")
    plan, keys = loadplans.plan(Wishes(("x",), wire="direct"), WHERE)
    assert keys == {"SPLITSECOND_KEY_0": "secret-and-long"}
    assert "secret" not in str(plan.as_data())


def test_wishes_become_schedules(rows: None) -> None:
    backend(base_url="http://127.0.0.1:9/v1")
    plan, _ = loadplans.plan(Wishes(("x",), rate=5.0, arrival="gamma", cv=3.0, duration_s=20), WHERE)
    assert (plan.mode, plan.schedule.kind, plan.schedule.cv, plan.warmup_s) == ("rate", "gamma", 3.0, 2.0)
    plan, _ = loadplans.plan(Wishes(("x",), spike="40@1"), WHERE)
    assert (plan.schedule.spikes, plan.warmup_s) == (((1.0, 40),), 0.0)
    plan, _ = loadplans.plan(Wishes(("x",), stages="10:30s,50:1m"), WHERE)
    assert (plan.mode, plan.users, plan.duration_s) == ("users", 0, 90.0)
    assert [plan.users_at(at_s) for at_s in (0, 15, 30, 60, 90)] == [0, 5, 10, 30, 50]
    plan, _ = loadplans.plan(Wishes(("x",), stages="10:30s,50:1m", arrival="poisson"), WHERE)
    assert (plan.mode, plan.schedule.rates) == ("rate", ((0.0, 0.0), (30.0, 10.0), (90.0, 50.0)))
    plan, _ = loadplans.plan(Wishes(("x",), trace="100\n101\n103\n145\n150\n"), WHERE)
    assert (plan.duration_s, plan.schedule.beyond(plan.duration_s)) == (51.0, 0)
    plan, _ = loadplans.plan(Wishes(("x",), trace="100\n101\n103\n145\n150\n", duration_s=30), WHERE)
    assert (plan.duration_s, plan.schedule.beyond(plan.duration_s)) == (30.0, 2)
    for stages in ("10", "10:soon", "10:30s,", "2000:10s"):
        with pytest.raises(Refusal, match=r"--stages wants|At most"):
            loadplans.plan(Wishes(("x",), stages=stages), WHERE)
    with pytest.raises(Refusal, match="needs a --rate"):
        loadplans.plan(Wishes(("x",), arrival="poisson"), WHERE)
