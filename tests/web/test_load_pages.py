"""The pages of load runs: made from rows alone, however many requests there were, and only for whom they are."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.hostwatch import measurements
from webapp.core.generator import Watch
from webapp.core.histogram import Histogram
from webapp.core.loadplan import Plan, Target
from webapp.core.loadstats import BackendStats, LoadStats
from webapp.core.loadsummary import chart_data, described, summarise
from webapp.models import Backend, LoadRun

pytestmark = pytest.mark.usefixtures("rows")
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


def cost(run: LoadRun) -> tuple[float, int, int]:
    """Return the best of some seconds, the queries and the size of a run's page."""
    client, best = Client(), 9.9
    client.get(f"/load/{run.id}/")
    for _ in range(3):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            begun = time.perf_counter()
            reply = client.get(f"/load/{run.id}/")
            best = min(best, time.perf_counter() - begun)
    assert reply.status_code == 200
    return best, len(queries), len(reply.content)


def test_a_million_requests_are_as_light_to_show_as_a_thousand() -> None:
    few, many = finished(1000), finished(1_000_000)
    for measurement in measurements():
        (small_s, small_queries, small), (big_s, big_queries, big) = cost(few), cost(many)
        assert big_queries == small_queries == 1
        assert big < 1.2 * small
        with measurement:
            assert big_s < 3 * small_s


def test_the_list_takes_as_many_queries_for_many_runs_as_for_one() -> None:
    finished(1000)
    with CaptureQueriesContext(connection) as one:
        Client().get("/load/")
    for _ in range(5):
        finished(1000)
    with CaptureQueriesContext(connection) as many:
        Client().get("/load/")
    assert len(many) == len(one)


def test_a_result_says_its_verdict_percentiles_errors_and_settings_and_escapes_what_servers_said() -> None:
    run = finished(1000, title="Morning")
    page = Client().get(f"/load/{run.id}/").content.decode()
    for said in ("Morning", "There were errors in this run.", "Backend A", "p95 intended", "ttft:900", "locust"):
        assert said in page
    assert "&lt;script&gt;alert(1)" in page
    assert HOSTILE not in page


def test_requests_that_did_not_end_and_were_too_late_already_are_counted() -> None:
    unfinished = [{"interrupted": 7, "overdue": 5}, {"interrupted": 7, "overdue": 0}]
    for counts, said in zip(unfinished, ("<b>7, 5 of them too late already</b>", "<b>7</b>"), strict=True):
        page = Client().get(f"/load/{finished(100, counts=counts).id}/").content.decode()
        assert f"unfinished {said}" in page


def test_a_sweep_shows_the_figures_and_the_errors_of_each_load() -> None:
    run = finished(100)
    block = run.summary["backends"]["a"]
    figures = {"interactivity": 1.0, "throughput": 2.0, "ttft_p50_ms": 1.0, "ttft_p95_ms": 1.0, "attainment": 1.0}
    point = {"backend": "a", "verdict": "valid", "failed": 1, **figures}
    counts = ({"ok": 4242}, {"ok": 4343})
    points = [
        {**point, "load": load, "figures": block | {"requests": block["requests"] | more}}
        for load, more in zip((1, 8), counts, strict=True)
    ]
    run.plan |= {"kind": "sweep", "loads": [1, 8]}
    run.summary |= {"plan": run.plan, "sweep": points}
    run.save()
    page = Client().get(f"/load/{run.id}/").content.decode()
    for load, answers in (("1 user", "4242"), ("8 users", "4343")):
        assert re.search(
            rf"<summary[^>]*>{load}</summary>(?:(?!</details>).)*answers <b>{answers}</b>", page, re.DOTALL
        )
        assert f"</span> {load}</th>" in page, "its errors"
    assert "Distribution of time to first token, ms, at 8 users" in page
    for kept in run.summary["sweep"]:
        kept.pop("figures")  # as an earlier version kept it
    run.save()
    page = Client().get(f"/load/{run.id}/").content.decode()
    assert page.count('class="load-table" data-letter') == page.count("figures at <b>8 users</b>") == 1


def test_percentiles_without_enough_samples_are_greyed_and_say_what_they_want() -> None:
    run = finished(40)
    run.summary["backends"]["a"]["ttft_ms"] |= {"n": 40, "p99": None}
    run.save()
    page = Client().get(f"/load/{run.id}/").content.decode()
    assert '<td class="few" title="wants 100 samples">n/a</td>' in page


def test_charts_are_specifications_and_an_unknown_one_is_not_found() -> None:
    run = finished(1000)
    client = Client()
    page = client.get(f"/load/{run.id}/").content.decode()
    addresses = re.findall(r'data-spec="([^"]+)"', page)
    assert len(addresses) >= 5
    for address in addresses:
        assert client.get(address).json()["data"]["values"]
    assert client.get(f"/load/{run.id}/chart/none.json").status_code == 404
    assert client.get(f"/load/{run.id}/chart/none.exe").status_code == 404


def compared(*runs: LoadRun) -> str:
    query = "&".join(f"run={run.id}" for run in runs)
    return Client().get(f"/load/compare/?{query}").content.decode()


def faster(run: LoadRun) -> LoadRun:
    """Halve every time of a run."""
    for bars in run.charts["distribution"]["a"].values():
        bars[:] = [[low / 2, high / 2, count] for low, high, count in bars]
    run.save()
    return run


def steady(run: LoadRun) -> LoadRun:
    """Have every time of a run lie between 100 and 101 ms."""
    bars = [[100 + k / 80, 100 + (k + 1) / 80, 100] for k in range(80)]
    run.charts["distribution"]["a"] = {"ttft": bars, "icl": bars, "e2e": bars}
    run.save()
    return run


def test_two_runs_are_compared_with_a_verdict_and_one_alone_says_how() -> None:
    a, b = finished(1000), finished(1000)
    assert "Cannot tell: the intervals of both runs overlap." in compared(a, b)
    assert "No difference." in compared(steady(finished(1000)), steady(finished(1000)))
    for wrong in ((a,), (a, b, finished(10))):
        assert "Two runs are needed" in compared(*wrong)


def test_the_earlier_of_two_runs_is_a_however_they_were_ticked() -> None:
    a, b = finished(1000), faster(finished(1000))
    for ticked in ((a, b), (b, a)):
        page = compared(*ticked)
        assert "Run B was faster: " in page
        assert page.index(a.id) < page.index(b.id)


def test_what_makes_two_runs_hard_to_compare_is_said() -> None:
    a, b = finished(1000), faster(finished(1000))
    b.plan["mix"] = "code"
    b.save()
    page = compared(a, b)
    assert "Run B was faster, but the runs differ: " in page
    assert "The mix differs: chat in A, code in B." in page
    b.summary["generator"]["reasons"] = ["It was late."]
    b.state = LoadRun.State.STOPPED
    b.save()
    page = compared(a, b)
    assert "Cannot tell: a load generator was the limit, not the server." in page
    assert "In run B the generator itself was the limit" in page
    assert "Run B did not run to its end (stopped)." in page


def test_figures_of_two_searches_that_ended_at_different_loads_are_not_passed_off_as_alike() -> None:
    runs = finished(1000), finished(1000)
    for run, users in zip(runs, (8, 2), strict=True):
        run.plan |= {"kind": "search", "up_to": 64}
        step = {"backend": "a", "load": users, "attainment": 1.0, "asked": 90, "low": 0.9, "high": 1.0}
        run.summary |= {"plan": run.plan, "search": {"a": {"users": users, "sentence": "", "steps": [step]}}}
        run.save()
    page = compared(*runs)
    assert "The load differs: 8 users in A, 2 users in B." in page
    assert "a, 8 users against a, 2 users" in page


@pytest.mark.parametrize(("stages", "said"), [((), True), (((0, 3), (9, 7)), False)])
def test_a_load_that_somebody_moved_is_told_from_one_that_was_planned_to_move(stages: Any, said: bool) -> None:
    run = finished(100)
    run.plan["stages"] = stages
    run.charts["series"] = [{**LIVE, "users": users} for users in (3, 7, 5)]
    run.save()
    page = Client().get(f"/load/{run.id}/").content.decode()
    assert ("changed while it ran <b>3 to 7 users</b>" in page) is said


@pytest.mark.parametrize("action", ["start/", "{}/steer/", "{}/stop/", "{}/delete/"])
def test_only_the_operator_may_send_steer_stop_and_delete(action: str) -> None:
    run = finished(10)
    path = f"/load/{action.format(run.id)}"
    assert Client(REMOTE_ADDR="192.0.2.7").post(path).status_code == 403
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert Client().get(path).status_code == 405
    assert LoadRun.objects.filter(id=run.id).exists()


def test_a_wrong_wish_is_answered_with_one_sentence_and_the_form_as_it_was() -> None:
    reply = Client().post("/load/start/", {"users": "many", "rate": "5", "title": "Kept", "backend": ["a"]})
    assert reply.status_code == 422
    page = reply.content.decode()
    assert 'id="problem-users">Users: a whole number from 0 to 1,000.<' in page
    for kept in ('value="Kept"', 'value="many"', 'name="rate" value="5"'):
        assert kept in page
    assert not LoadRun.objects.exists()


def test_the_drawer_answers_a_wrong_wish_with_its_controls_and_a_sentence() -> None:
    reply = Client().post("/load/start/", {"users": "many", "backend": ["a"], "drawer": "on"})
    assert reply.status_code == 422
    assert reply.content.decode().count('id="load-controls"') == 1
    assert "Users: a whole number" in reply.content.decode()


GOOD = {"backend": ["a"], "duration": "5"}


@pytest.mark.parametrize(
    ("field", "wish", "sentence"),
    [
        ("backend", {"backend": []}, "needs 1 to 8 backends"),
        ("backend", {"backend": ["nobody"]}, "There is no backend &#x27;nobody&#x27;"),
        ("users", {"users": "1.5"}, "a whole number"),
        ("users", {"users": "600", "backend": ["a", "b"]}, "At most 500 on each of 2 backends"),
        ("rate", {"arrival": "poisson", "rate": "nan"}, "from 0.01 to 500"),
        ("cv", {"arrival": "gamma", "cv": ""}, "from 0.05 to 20"),
        ("duration", {"duration": "1e9"}, "from 0.5 to 3,600"),
        ("think", {"think": "-1"}, "from 0 to 600"),
        ("slo", {"slo": "speed:1"}, "There is no SLO"),
        ("slo", {"kind": "search"}, "A search needs an SLO"),
        ("first", {"kind": "search", "first": "0"}, "from 1 to 1,000"),
        ("up_to", {"kind": "search", "first": "9", "up_to": "8"}, "no fewer users"),
        ("step", {"kind": "sweep", "step": "soon"}, "from 0.5 to 3,600"),
        ("loads", {"kind": "sweep", "loads": "1, two"}, "such as 1, 2, 4, 8"),
        ("loads", {"kind": "sweep", "loads": "0.5"}, "numbers of users"),
        ("loads", {"kind": "sweep", "arrival": "constant", "loads": "501"}, "numbers of requests per second"),
        ("loads", {"kind": "sweep", "loads": "2 2"}, "each of them once"),
        ("title", {"title": "x" * 201}, "at most 200"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(field: str, wish: dict[str, Any], sentence: str) -> None:
    Backend.objects.create(slug="a", label="A", model="m", base_url="http://127.0.0.1:9/v1")
    reply = Client().post("/load/start/", GOOD | wish)
    assert reply.status_code == 422
    page = reply.content.decode()
    said = re.search(rf'id="problem-{field}">([^<]+)<', page)
    assert said
    assert sentence in said[1]
    assert page.count("autofocus") == 1
    assert not LoadRun.objects.exists()


def test_fields_of_another_kind_are_kept_and_not_judged() -> None:
    reply = Client().post("/load/start/", GOOD | {"kind": "search", "loads": "many", "slo": ""})
    assert 'name="loads" value="many"' in reply.content.decode()
    assert "problem-loads" not in reply.content.decode()


def test_a_run_is_started_again_with_what_it_was_asked() -> None:
    for kind, more in (("search", {"up_to": 32}), ("sweep", {"loads": [1, 2]}), ("ab", {})):
        run = finished(10)
        run.plan |= {"kind": kind, "mix": "fixed:20/5", "duration_s": 7.0, **more}
        run.backends = ["a", "a#2"]
        run.save()
        page = Client().get(f"/load/?again={run.id}").content.decode()
        assert f'name="kind" value="{kind}" checked' in page
        assert '<option value="fixed:20/5" selected>' in page
        if kind == "ab":
            assert 'name="duration" value="7"' in page
        else:
            assert 'name="step" value="7"' in page
    assert 'name="up_to" value="64"' in page, "what it did not ask has its first value"


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


def test_the_help_says_what_no_run_exceeds() -> None:
    page = Client().get("/help/load/").content.decode()
    assert "No run has more than 1,000 users or 500 requests per second" in page
    assert "asks more than 200,000 times, or lasts longer than 60 minutes. A search and a sweep are several" in page


@pytest.mark.parametrize("path", ["/load/?again=%00", "/load/drawer/?after=%00", "/load/compare/?run=%00&run=x"])
def test_odd_addresses_break_nothing(path: str) -> None:
    assert Client().get(path).status_code == 200
