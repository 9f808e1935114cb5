"""Results of load runs, alone and beside each other: made from rows alone, however many requests there were."""

from __future__ import annotations

import re
import time
from copy import deepcopy
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.hostwatch import measurements
from tests.web.load_runs import HOSTILE, LIVE, finished
from webapp.models import LoadRun
from webapp.services import loadreport, loadverdict

pytestmark = pytest.mark.usefixtures("rows")


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


def with_answer(**found: Any) -> LoadRun:
    """Keep a run with this of a search, a sweep or a paired comparison in its summary, of two backends."""
    run = finished(100)
    run.plan["targets"] = [{"slug": slug, "label": slug.upper()} for slug in ("a", "b")]
    run.plan |= {"kind": {"search": "search", "sweep": "sweep", "pairs": "ab"}[next(iter(found))], "up_to": 9}
    run.plan["loads"] = [1, 8]
    run.summary |= {"plan": run.plan, "exit_code": 0, **found}
    run.exit_code = 0
    run.save()
    return run


def in_the_list(run: LoadRun) -> str:
    page = Client().get("/load/").content.decode()
    row = re.search(rf'value="{run.id}".*?class="run-verdict">(.*?)</p>', page, re.DOTALL)
    assert row
    return re.sub(r"<[^>]*>", "", row[1]).strip()


def test_the_list_shows_what_a_search_a_sweep_or_a_pair_has_found() -> None:
    steps = [{"backend": "a", "load": 1, "attainment": 1.0, "asked": 90, "low": 0.9, "high": 1.0}]
    limits = {"a": (12, 13), "b": (64, None), "c": (0, 1), "d": (0, None)}
    search = {
        slug: {"users": low, "first_failed": high, "sentence": "", "steps": steps}
        for slug, (low, high) in limits.items()
    }
    run = with_answer(search={slug: search[slug] for slug in "ab"})
    assert in_the_list(run) == "A: 12 users; B: at least 64 users."
    run = with_answer(search={"a": search["c"], "b": search["d"]})
    assert in_the_list(run) == "A: not even 1 user; B: not measurable."
    point = {"interactivity": 1.0, "ttft_p50_ms": 1.0, "ttft_p95_ms": 1.0, "verdict": "valid", "failed": 0}
    points = [{**point, "backend": slug, "load": k, "throughput": 55.0 * k} for slug in "ab" for k in (1, 8)]
    assert in_the_list(with_answer(sweep=points)) == (
        "A: 55 to 440 tok/s of all at 1 to 8 users; B: 55 to 440 tok/s of all at 1 to 8 users."
    )
    results = {"ttft": "B faster", "tpot": "A faster", "e2e": "no difference"}
    pairs = [{"a": "a", "b": "b", "figure": figure, "result": result} for figure, result in results.items()]
    said = "TTFT: B is faster than A; Whole answer: no difference between A and B."
    run = with_answer(pairs=pairs)
    assert in_the_list(run) == said
    run.exit_code = run.summary["exit_code"] = 3
    run.save()
    assert in_the_list(run) == f"The SLO was missed. {said}"


def test_what_is_not_measurable_says_the_one_reason_why() -> None:
    run = finished(7)
    run.summary["backends"]["a"]["requests"] |= {"ok": 1, "asked": 7}
    run.exit_code = run.summary["exit_code"] = 4
    limited, killed, free = (deepcopy(run.summary) for _ in range(3))
    limited["generator"]["reasons"] = ["It was late."]
    killed["ended"] = "interrupted"
    free["slo"] = None
    for summary, said in (
        (run.summary, "too few samples, 7 requests where an SLO for 95% wants 20."),
        (free, "too few samples, 1 answer where a median wants 2."),
        (limited, "the generator itself was the limit."),
        (killed, "the load generator was ended before its time. What had been measured is kept."),
    ):
        assert loadverdict.verdict(summary) == f"Not measurable: {said}"
    run.save()
    assert in_the_list(run).startswith("Not measurable: too few samples, 7 requests")
    run.summary["plan"]["targets"].append({"slug": "b", "url": "", "model": "b"})
    run.summary["backends"]["b"] = deepcopy(run.summary["backends"]["a"])
    run.summary["backends"]["b"]["requests"]["asked"] = 3
    assert "3 requests of B where" in loadverdict.verdict(run.summary)


def test_a_report_has_the_settings_that_the_page_has_and_no_raw_data() -> None:
    run = finished(1000)
    run.summary["plan"]["behaviour"] = {"think_s": 5.0}
    run.plan = run.summary["plan"]
    run.save()
    report = loadreport.page(run.summary, [])
    page = Client().get(f"/load/{run.id}/").content.decode()
    shown = re.findall(r"<div><dt>([^<]+)</dt><dd>([^<]+)</dd></div>", page.partition(">Settings</h2>")[2])
    assert ("think, s", "5") in shown
    table = report.partition('class="settings"')[2]
    for name, value in shown[: shown.index(("think, s", "5")) + 1]:
        assert f"<tr><td>{name}</td><td>{value}</td></tr>" in table
    assert "<td>a</td><td>model a</td>" in table
    assert "&quot;" not in report, "JSON"
    assert "<h1>Load test: A a</h1>" in report


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
    run.charts["distribution"]["a"] = {"ttft": bars, "tpot": bars, "icl": bars, "e2e": bars}
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


def test_nothing_is_told_from_a_run_that_is_not_measurable() -> None:
    a, b = finished(1000), faster(finished(1000))
    for codes, said in (((0, 4), "run B is not"), ((4, 1), "run A is not"), ((4, 4), "neither run is")):
        a.exit_code, b.exit_code = codes
        a.save()
        b.save()
        page = compared(a, b)
        assert f"Cannot tell: {said} measurable." in page
        assert "is faster" not in page


def test_a_difference_that_a_late_host_may_have_made_is_told_by_nobody() -> None:
    a, b = finished(1000), faster(finished(1000))
    assert "Run B was faster: TTFT p50" in compared(a, b)
    a.summary["backends"]["a"]["server"] = {"most_late_ms": 60_000.0}
    a.save()
    page = compared(a, b)
    assert "Run B was faster: TPOT p50" in page
    assert "In run A a simulator&#x27;s host was late by up to 60000 ms; its times may be too large." in page


def test_gaps_alone_make_no_run_the_faster_one() -> None:
    """Thousands of them come from a few answers, and those of one are alike."""
    a, b = finished(1000), finished(1000)
    gaps = b.charts["distribution"]["a"]["icl"]
    gaps[:] = [[low / 2, high / 2, count] for low, high, count in gaps]
    b.save()
    assert "faster" not in compared(a, b)


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


@pytest.mark.parametrize("path", ["/load/?again=%00", "/load/drawer/?after=%00", "/load/compare/?run=%00&run=x"])
def test_odd_addresses_break_nothing(path: str) -> None:
    assert Client().get(path).status_code == 200
