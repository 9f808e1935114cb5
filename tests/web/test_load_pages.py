"""The pages of load runs: made from rows alone, however many requests there were, and only for whom they are."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from webapp.core.generator import Watch
from webapp.core.histogram import Histogram
from webapp.core.loadplan import Plan, Target
from webapp.core.loadstats import BackendStats, LoadStats
from webapp.core.loadsummary import chart_data, described, summarise
from webapp.models import LoadRun

pytestmark = pytest.mark.usefixtures("rows")
HOSTILE = "<script>alert(1)</script>"
LIVE = {
    "t_s": 1.0,
    "users": 3,
    "backends": {"a": {"ttft_p50_ms": 5.0, "ttft_p95_ms": 9.0, "icl_p50_ms": 1.0, "output_tokens_per_s": 7}},
}


def finished(requests: int, **fields: Any) -> LoadRun:
    """Keep the row of a run with so many requests; it has left no files."""
    plan = Plan(targets=(Target("a", "http://127.0.0.1:1/v1", "a", "Backend A", "SIMULATED"),), users=3, slo="ttft:900")
    stats = LoadStats(plan.window, plan.limits(), {"a": BackendStats(ok=requests, good=requests, failed=1)})
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
    (small_s, small_queries, small), (big_s, big_queries, big) = cost(finished(1000)), cost(finished(1_000_000))
    assert big_queries == small_queries == 1
    assert big < 1.2 * small
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


def test_two_runs_are_compared_with_a_verdict_and_one_alone_says_how() -> None:
    a, b = finished(1000), finished(1000)
    page = Client().get(f"/load/compare/?run={b.id}&run={a.id}").content.decode()
    assert "No difference." in page or "Cannot tell" in page
    assert "Two runs are needed" in Client().get(f"/load/compare/?run={a.id}").content.decode()


@pytest.mark.parametrize("action", ["start/", "{}/steer/", "{}/stop/", "{}/delete/"])
def test_only_the_operator_may_send_steer_stop_and_delete(action: str) -> None:
    run = finished(10)
    path = f"/load/{action.format(run.id)}"
    assert Client(REMOTE_ADDR="192.0.2.7").post(path).status_code == 403
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert Client().get(path).status_code == 405
    assert LoadRun.objects.filter(id=run.id).exists()


def test_a_wrong_wish_is_answered_with_one_sentence_and_the_form_as_it_was() -> None:
    reply = Client().post("/load/start/", {"users": "many", "title": "Kept"})
    assert reply.status_code == 400
    assert "Users has to be a number" in reply.content.decode()
    assert 'value="Kept"' in reply.content.decode()
    assert not LoadRun.objects.exists()


@pytest.mark.parametrize("wish", [{"users": "many"}, {"rate": "nan"}, {"rate": "inf"}, {}])
def test_a_slider_that_asks_for_no_number_is_told_so(wish: dict[str, str]) -> None:
    reply = Client().post(f"/load/{finished(10).id}/steer/", wish)
    assert reply.status_code == 400
    assert "has to be a number" in reply.json()["error"]


def test_a_slider_of_a_run_that_has_ended_is_told_so() -> None:
    reply = Client().post(f"/load/{finished(10).id}/steer/", {"users": "3"})
    assert (reply.status_code, reply.json()["error"]) == (409, "This load run is not going on any more.")


@pytest.mark.parametrize("path", ["/load/?again=%00", "/load/drawer/?after=%00", "/load/compare/?run=%00&run=x"])
def test_odd_addresses_break_nothing(path: str) -> None:
    assert Client().get(path).status_code == 200
