"""A load run that is going on: moving it, its progress in words, and what its live figures are worth."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import orjson
import pytest
from django.test import Client

from tests.web.load_runs import finished
from webapp.models import LoadRun
from webapp.services import load
from webapp.services.owners import owner_of

pytestmark = pytest.mark.usefixtures("rows")


def test_a_search_cannot_be_steered() -> None:
    run = finished(10)
    run.plan["kind"], run.state = "search", LoadRun.State.RUNNING
    run.save()
    reply = Client().post(f"/load/{run.id}/steer/", {"users": "3"})
    assert (reply.status_code, "cannot be changed" in reply.json()["error"]) == (409, True)


@pytest.mark.parametrize("wish", [{"users": "many"}, {"rate": "nan"}, {"rate": "inf"}, {}])
def test_a_slider_that_asks_for_no_number_is_told_so(wish: dict[str, str]) -> None:
    reply = Client().post(f"/load/{finished(10).id}/steer/", wish)
    assert reply.status_code == 400
    assert "has to be a number" in reply.json()["error"]


def test_a_slider_of_a_run_that_has_ended_is_told_so() -> None:
    reply = Client().post(f"/load/{finished(10).id}/steer/", {"users": "3"})
    assert (reply.status_code, reply.json()["error"]) == (409, "This load run is not going on any more.")


def test_a_run_is_not_deleted_before_it_has_ended_which_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = finished(10), finished(10, owner=owner_of(os.getppid()))
    monkeypatch.setitem(load._threads, here.id, Thread())
    LoadRun.objects.update(state=LoadRun.State.RUNNING)
    for run in (here, elsewhere):
        reply = Client().post(f"/load/{run.id}/delete/")
        assert reply.status_code == 409
        assert "This load run is still going on; stop it first." in reply.content.decode()
        assert f'href="/load/{run.id}/"' in reply.content.decode()
    assert LoadRun.objects.count() == 2


def test_a_run_that_is_being_stopped_says_so_and_shows_nothing_to_steer_or_stop_it_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = finished(10)
    LoadRun.objects.update(state=LoadRun.State.RUNNING)
    for stopping, shown in ((False, True), (True, False)):
        monkeypatch.setattr(load, "is_stopping", lambda _, stopping=stopping: stopping)
        for address in (f"/load/{run.id}/", "/load/drawer/"):
            page = Client().get(address).content.decode()
            assert ('type="range"' in page, 'id="load-stop"' in page) == (shown, shown), address
        assert ("Stopping: nothing more leaves" in Client().get(f"/load/{run.id}/").content.decode()) is stopping


def test_a_report_that_is_being_written_yet_is_waited_for_by_who_fetches_or_deletes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row has its results a second or two before: the page that shows them links the report."""
    run = finished(10)
    LoadRun.objects.update(folder=str(tmp_path))
    steps = [lambda: None, (tmp_path / "report.html").touch]
    for step, request in zip(steps, ("delete/", "file/report.html"), strict=True):
        writing = Thread(target=lambda step=step: (step(), load._threads.pop(run.id)))
        monkeypatch.setitem(load._threads, run.id, writing)
        monkeypatch.setattr(load, "wait", lambda _, seconds, writing=writing: (writing.start(), writing.join(seconds)))
        if request == "delete/":
            monkeypatch.setattr(LoadRun, "delete", lambda _: None)
            assert Client().post(f"/load/{run.id}/{request}").status_code == 302
        else:
            assert Client().get(f"/load/{run.id}/{request}").status_code == 200


def test_progress_says_the_step_that_is_under_way_with_its_attainment_and_those_before(tmp_path: Path) -> None:
    run = finished(10)
    steps = [{"backend": "a", "load": 2, "attainment": 0.99, "asked": 90, "low": 0.95, "high": 1.0,
              "limited": False, "thin": False}]  # fmt: skip
    run.plan |= {"kind": "search", "up_to": 64, "loads": []}
    run.summary, run.state, run.folder = {"search": {"a": {"steps": steps}}}, LoadRun.State.RUNNING, str(tmp_path)
    run.save()
    assert "Starting the generator" in Client().get(f"/load/{run.id}/progress/").content.decode()
    step = {"number": 2, "done": 1, "backend": "a", "load": 4, "duration_s": 20.0, "t_s": 8.2, "again": False}
    line = {"t_s": 31.0, "users": 4, "step": step, "backends": {"a": {"asked": 40, "good": 30}}}
    (tmp_path / "live.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    said = Client().get(f"/load/{run.id}/progress/").content.decode()
    assert "Step 2: 4 users on Backend A, 8 s of 20 s. 75.0% of 40 good so far." in said
    assert said.index("under way") < said.index("enough"), "the newest first"
    assert Client().get(f"/load/{run.id}/chart/growing.json").json()["data"]["values"][0]["load"] == 2
    step |= {"done": 0}  # the last line of a step that has ended
    (tmp_path / "live.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    assert "under way" not in Client().get(f"/load/{run.id}/progress/").content.decode()


def test_progress_of_a_sweep_says_how_much_is_left(tmp_path: Path) -> None:
    run = finished(10)
    run.plan |= {"kind": "sweep", "loads": [1, 2, 4]}
    run.summary, run.state, run.folder = {}, LoadRun.State.RUNNING, str(tmp_path)
    run.save()
    step = {"number": 1, "done": 0, "backend": "a", "load": 1, "duration_s": 30.0, "t_s": 10.0, "again": False}
    line = {"t_s": 10.0, "users": 1, "step": step, "backends": {"a": {"output_tokens_per_s": 12}}}
    (tmp_path / "live.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    said = Client().get(f"/load/{run.id}/progress/").content.decode()
    assert "Step 1 of 3: 1 user on Backend A, 10 s of 30 s; about 1 min 20 s left in all." in said


def test_progress_of_a_pair_shows_each_difference_with_its_interval(tmp_path: Path) -> None:
    run = finished(10)
    run.plan["kind"] = "ab"
    run.plan["targets"].append(run.plan["targets"][0] | {"slug": "b"})
    run.state, run.folder = LoadRun.State.RUNNING, str(tmp_path)
    run.save()
    pair = {"a": "a", "b": "b", "figure": "ttft", "n": 50, "difference_ms": -20.0, "interval_ms": [-30.0, -10.0],
            "p_a_faster": 0.9, "p_interval": [0.7, 0.97], "result": "A faster"}  # fmt: skip
    unknown = pair | {"figure": "e2e", "n": 3, "interval_ms": [None, None], "result": "cannot tell"}
    line = {"t_s": 10.0, "users": 1, "backends": {}, "pairs": [pair, unknown]}
    (tmp_path / "live.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    said = Client().get(f"/load/{run.id}/progress/").content.decode()
    for word in ("10 s of 30 s", "A − B", "−20 ms", "−30 ms to −10 ms", "90%", "A is faster", "cannot tell", "n/a"):
        assert word in said


LATE = "The generator's loop was late by 80 ms (p99)."
BEHIND = "The simulator ran up to 44 ms behind its schedule."
HELD_UP = "The web app that the requests pass through was late by up to 90 ms (p99)."


@pytest.mark.parametrize(
    ("reasons", "late_ms", "lag_ms", "wire", "doubts"),
    [
        ([], 3.0, 9, "sse", []),
        ([LATE], 44.0, 90, "sse", [LATE, HELD_UP, BEHIND]),
        ([], None, 90, "sse", [HELD_UP]),
        ([], None, 90, "direct", []),
    ],
)
def test_live_figures_come_with_the_reasons_why_they_are_not_the_servers_own(
    reasons: list[str],
    late_ms: float | None,
    lag_ms: int,
    wire: str,
    doubts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("webapp.views.load.loop_lag.p99_ns", lambda from_ns, to_ns: lag_ms * 1_000_000)
    run = finished(10)
    run.state, run.folder, run.wire = LoadRun.State.RUNNING, str(tmp_path), wire
    run.save()
    server = None if late_ms is None else {"running": 1, "waiting": 0, "kv_usage": 0.1, "late_ms": late_ms}
    line = {"t_s": 1.0, "users": 2, "backends": {"a": {"server": server}}, "generator": {"reasons": reasons}}
    (tmp_path / "live.jsonl").write_bytes(orjson.dumps(line) + b"\n")
    news = Client().get(f"/load/{run.id}/live.json").json()
    assert news["doubts"] == doubts
    assert "doubts" not in Client().get(f"/load/{run.id}/live.json?after={news['after']}").json(), "nothing is new"
