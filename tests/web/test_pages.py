"""Every page: it acts on nothing, carries its headers, survives odd addresses, and shows what was kept."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import orjson
import pytest
from channels.testing import HttpCommunicator
from django.apps import apps
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, reverse

from tests.live import LiveApp
from tests.upstreams.wire import REASONING, TEXT
from tests.web.kept import kept_run
from webapp import drain
from webapp.asgi import application
from webapp.middleware import HEADERS
from webapp.models import Backend, Comparison, Turn
from webapp.services import backends, speed
from webapp.services.scenarios import scenarios
from webapp.urls import urlpatterns
from webapp.views import pages

ACTING = {"backend-test", "backend-remove", "unlock", "keep"}  # POST only
# Every address of these shows something; other routes may answer otherwise, but act on nothing all the same.
PAGES = {
    "arena",
    "help",
    "help-load",
    "accuracy",
    "speed",
    "runs",
    "comparison",
    "turn",
    "backends",
    "backend-add",
    "backend-edit",
}
FILES = {"record", "healthz", "asset"}
MACHINE_WIRE = ("/v1/models", "/v1/chat/completions", "/v1/nothing")
ODD = ("%00", "%ff", "..%2f..%2fmanage.py", "a" * 3000, "%F0%9F%92%A9", "'--", "<script>", "\\..\\x")


def routes() -> list[URLPattern]:
    return [route for route in urlpatterns if isinstance(route, URLPattern)]


def address(route: URLPattern, kept: Comparison | None = None) -> str:
    """Return an address of this route, of rows that exist where `kept` is given."""
    samples: dict[str, Any] = {
        "comparison_id": kept.id if kept else "x",
        "turn_id": kept.turns.all()[0].id if kept else "y",
        "slug": "oci-llama-70b",
        "path": "css/layout.css",
    }
    assert route.name is not None
    return reverse(route.name, kwargs={name: samples.get(name, "x") for name in route.pattern.converters})


def everything() -> dict[str, list[dict[str, Any]]]:
    models = apps.get_app_config("webapp").get_models()
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


@pytest.fixture
def trap(rows: None) -> Iterator[socket.socket]:
    """Seeded backends whose address is a port that counts who calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        backends.seed()
        Backend.objects.update(base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        yield server


def test_looking_at_any_page_changes_nothing_and_calls_nobody(trap: socket.socket) -> None:
    _, kept = kept_run("ok", "fault-u14")
    before = everything()
    client = Client()
    for route in routes():
        reply = client.get(address(route, kept))
        shown_or_refused = (200,) if route.name in PAGES | FILES else (200, 404, 405)
        assert reply.status_code in ((405,) if route.name in ACTING else shown_or_refused), route.name
    for query in ("?prompt=Run+me&lane=oci-llama-70b&scenario=agent&action=run", "?arena=x&run=y", "?key=1"):
        assert client.get("/" + query).status_code == 200
    assert everything() == before
    with pytest.raises(BlockingIOError):
        trap.accept()


def test_an_address_fills_the_prompt_and_sends_nothing(trap: socket.socket) -> None:
    page = (
        Client().get("/", {"prompt": '</textarea><script>alert(1)</script>"', "lane": "oci-llama-70b"}).content.decode()
    )
    assert "&lt;/textarea&gt;&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert page.count('class="lane"') == 1
    with pytest.raises(BlockingIOError):
        trap.accept()


@pytest.mark.parametrize("path", [*map(address, routes()), *MACHINE_WIRE])
def test_every_address_carries_the_security_headers(path: str, live_app: LiveApp) -> None:
    reply = live_app.browser().get(path)
    for name, value in HEADERS.items():
        assert reply.headers[name] == value
    assert reply.headers["Server"] is None
    policy = dict(part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in " ".join(policy.values())


@pytest.mark.parametrize(
    "path", ["/nothing-here", "/static/nothing.css", "/runs/none/", "/runs/none/none/", "/v1/nothing"]
)
def test_what_is_not_there_says_so_with_the_same_headers(path: str, live_app: LiveApp) -> None:
    reply = live_app.browser().get(path)
    assert reply.status == 404
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "path", ["/{}", "/static/{}", "/runs/{}/", "/runs/x/{}/", "/runs/{}/record.json", "/runs/?page={}"]
)
def test_odd_addresses_are_not_found_and_break_nothing(path: str, odd: str, rows: None) -> None:
    reply = Client(raise_request_exception=False).generic("GET", path.format(odd))
    assert reply.status_code in (200, 400, 404)
    assert (reply.status_code == 200) == ("page=" in path)


@pytest.mark.parametrize(
    "query", ["?arena=%00", "?lane=%00&lane=x", "?scenario=none", "?prompt=%00", "?arena=" + "x" * 3000]
)
def test_odd_queries_open_an_arena_all_the_same(query: str, rows: None) -> None:
    backends.seed()
    assert Client().get("/" + query).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80@evil.example", "[::2]"])
def test_a_host_that_is_not_ours_is_refused_and_fills_no_log(host: str, live_app: LiveApp) -> None:
    before = live_app.log.count("\n")
    for path in ("/", "/v1/models", "/healthz", "/static/css/layout.css"):
        assert live_app.browser().get(path, Host=host).status == 400
    assert live_app.log.count("\n") - before <= 8


def test_the_list_of_runs_asks_the_database_no_more_for_more_runs(rows: None) -> None:
    counts = []
    for runs in (1, 4):
        for _ in range(runs):
            kept_run("ok", "ok-multi")
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert Client().get("/runs/").status_code == 200
        counts.append(len(captured))
        assert not any('"webapp_turn"."deltas"' in query["sql"] for query in captured)
    assert counts[0] == counts[1] <= 4


def test_the_list_of_runs_goes_on_over_pages(rows: None) -> None:
    for number in range(23):
        Comparison.objects.create(
            created_at="2026-01-01T00:00:00Z", asked_by="page", prompt=f"Prompt {number}", done=True
        )
    client = Client()
    assert client.get("/runs/").content.decode().count('class="run"') == 20
    assert client.get("/runs/?page=2").content.decode().count('class="run"') == 3
    assert client.get("/runs/?page=99").content.decode().count('class="run"') == 3


def test_a_comparison_shows_what_was_stored(rows: None) -> None:
    run, kept = kept_run("ok", "ok-reasoning", "fault-u14", prompt="Is <b>this</b> kept?", seed=0, temperature=0.0)
    page = shown(f"/runs/{kept.id}/")
    assert "Is &lt;b&gt;this&lt;/b&gt; kept?" in page
    assert run.verdict is not None
    assert run.verdict.sentence in unescape(page)
    assert page.count(TEXT) == 2
    assert REASONING in page
    for fact in ("seed <b>0</b>", "temperature <b>0.0</b>", "Label of ok", "truncated", "a source"):
        assert fact in page
    ttft_ms = run.lanes[0].turns[0].figures().ttft_ms
    assert figure(page, "ttft") == (f"{ttft_ms:.2f}" if ttft_ms and ttft_ms < 9.995 else f"{ttft_ms:.1f}")


def test_a_turns_page_shows_its_marks_settings_and_versions(rows: None) -> None:
    run, kept = kept_run("ok", max_tokens=7, system="Be <i>brief</i>.")
    turn = kept.turns.all()[0]
    page = shown(f"/runs/{kept.id}/{turn.id}/")
    assert TEXT in page
    assert "Be &lt;i&gt;brief&lt;/i&gt;." in page
    sent = run.lanes[0].turns[0].marks.sent
    assert sent is not None
    assert f"{(sent - run.lanes[0].origin_ns) / 1e6:.3f} ms" in page
    for fact in ("<dt>max tokens</dt><dd>7</dd>", "<dt>aiohttp</dt>", "<dt>first token</dt>", "a source"):
        assert fact in page
    for key in ("icl_p99", "tpot"):  # nine tokens within 50 ms
        assert f'data-key="{key}" data-weak' in page
    assert 'data-key="ttft" data-weak' not in page


def test_a_turn_of_a_server_that_stamps_its_writes_says_how_far_off_our_figures_are(rows: None) -> None:
    run, kept = kept_run("ok-timeinfo")
    turn = kept.turns.all()[0]
    stamps = {"arrived_ns": 0, "first_ns": 1_000_000, "last_ns": 2_000_000, "first_tokens": 1}
    account = {"parts": {"weights": 3e-3, "kv": 1e-3, "unheard of": 9.0, "prefill": "odd"}, "emitted": stamps}
    Turn.objects.update(server_times={"Cerebras": account}, badge="SIMULATED")
    figures = run.lanes[0].turns[0].figures()
    assert figures.ttft_ms is not None
    truth = Client().get(f"/runs/{kept.id}/record.json").json()["lanes"][0]["truth"]
    assert truth["ttft_off_ms"] == pytest.approx(figures.ttft_ms - 1)
    page = shown(f"/runs/{kept.id}/{turn.id}/")
    assert f"TTFT {figures.ttft_ms - 1:+.2f} ms" in page
    assert "75 % reading weights, 25 % reading the KV cache" in page
    assert "unheard of" not in page
    Turn.objects.update(outcome="truncated")
    assert Client().get(f"/runs/{kept.id}/record.json").json()["lanes"][0]["truth"] is None


def test_a_turn_is_found_under_its_own_comparison_only(rows: None) -> None:
    (_, first), (_, second) = kept_run("ok"), kept_run("ok")
    assert Client().get(f"/runs/{first.id}/{second.turns.all()[0].id}/").status_code == 404


def test_the_recording_holds_every_delta_and_state_with_the_live_times(rows: None) -> None:
    run, kept = kept_run("ok-reasoning", "fault-u14")
    record = Client().get(f"/runs/{kept.id}/record.json").json()
    assert record["run"] == run.id
    for live, lane in zip(run.lanes, record["lanes"], strict=True):
        assert lane["d"] == live.since(0, 999)
        assert lane["outcome"] == live.outcome
        assert [state[1] for state in lane["states"]] == [state.name for state in live.states()]
        figures = live.turns[0].figures()
        assert lane["figures"] == {name: getattr(figures, name) for name in lane["figures"]}
    alone = Client().get(f"/runs/{kept.id}/record.json", {"turn": kept.turns.all()[1].id}).json()
    assert [lane["d"] for lane in alone["lanes"]] == [record["lanes"][1]["d"]]
    assert Client().get(f"/runs/{kept.id}/record.json", {"turn": "none"}).json()["lanes"] == []


@pytest.mark.parametrize("slug", ["chat", "translation", "voice"])
def test_the_recording_marks_what_the_live_strip_marked(slug: str, rows: None) -> None:
    _, kept = kept_run("ok")
    Comparison.objects.update(scenario=slug)
    scenario = scenarios()[slug]
    for query in ({}, {"turn": kept.turns.all()[0].id}):
        record = Client().get(f"/runs/{kept.id}/record.json", query).json()
        assert record["due_us"] == [round(step.due_s * 1e6) for step in scenario.steps]
        assert record["budget_us"] == scenario.budget_ms * 1000
    assert any(record["due_us"]) == (slug == "translation")
    assert bool(record["budget_us"]) == (slug == "voice")


def test_a_run_that_is_still_going_can_be_looked_at(rows: None) -> None:
    row = Comparison.objects.create(created_at="2026-01-01T00:00:00Z", asked_by="page", prompt="Going on")
    for path in (f"/runs/{row.id}/", f"/runs/{row.id}/record.json", "/runs/"):
        assert Client().get(path).status_code == 200


def test_a_run_of_a_scenario_that_is_no_more_is_shown_all_the_same(rows: None) -> None:
    _, kept = kept_run("ok")
    Comparison.objects.update(scenario="gone")
    assert TEXT in shown(f"/runs/{kept.id}/")


def test_running_it_again_leads_to_the_same_lanes_and_prompt_and_sends_nothing(rows: None) -> None:
    backends.seed()
    _, kept = kept_run("ok", prompt="Once & again?")
    Turn.objects.update(backend_slug="oci-llama-70b")
    found = re.search(r'class="button" href="(/\?[^"]+)"', shown(f"/runs/{kept.id}/"))
    assert found
    again = shown(unescape(found.group(1)))
    assert "Once &amp; again?" in again
    assert again.count('class="lane"') == 1


def test_a_healthy_process_says_so(rows: None) -> None:
    reply = Client().get("/healthz")
    assert reply.status_code == 200
    body = reply.json()
    assert (body["status"], body["database"], body["rows_lost"]) == ("ok", "ok", body["rows_lost"])


def test_a_process_that_is_ending_is_not_healthy(rows: None) -> None:
    drain.begin()
    try:
        reply = Client().get("/healthz")
    finally:
        drain.reset()
    assert (reply.status_code, reply.json()["status"]) == (503, "draining")


def test_a_process_without_its_database_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> int:
        raise ConnectionError("secret address")

    monkeypatch.setattr(pages, "_count_backends", gone)
    reply = Client().get("/healthz")
    assert (reply.status_code, reply.json()["status"]) == (503, "unhealthy")
    assert "secret" not in reply.content.decode()


def test_a_static_file_that_is_known_is_not_sent_again(live_app: LiveApp) -> None:
    browser = live_app.browser()
    first = browser.get("/static/css/layout.css")
    assert first.headers["Content-Type"] == "text/css; charset=utf-8"
    again = browser.get("/static/css/layout.css", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


def test_scripts_are_served_as_scripts(live_app: LiveApp) -> None:
    kind = live_app.browser().get("/static/js/page.js").headers["Content-Type"]
    assert kind.startswith("text/javascript")


def test_no_page_holds_inline_script_or_style(rows: None) -> None:
    backends.seed()
    _, kept = kept_run("ok")
    for route in routes():
        if route.name not in PAGES:
            continue
        page = shown(address(route, kept))
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page), route.name
        assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", page)), route.name


def shown(path: str) -> str:
    reply = Client().get(path)
    assert reply.status_code == 200
    return reply.content.decode()


def figure(page: str, key: str) -> str:
    found = re.search(rf'data-key="{key}".*?class="num">([^<]*)<', page)
    assert found
    return found.group(1)


def test_many_pages_at_once_are_all_served(live_app: LiveApp) -> None:
    async def all_of_them() -> list[int]:
        browser = live_app.browser()
        replies = await asyncio.gather(*(asyncio.to_thread(browser.get, "/runs/") for _ in range(30)))
        return [reply.status for reply in replies]

    assert asyncio.run(all_of_them()) == [200] * 30


async def test_a_model_with_nul_in_its_name_is_not_there(rows: None) -> None:
    body = orjson.dumps({"model": "a\0b", "messages": [{"role": "user", "content": "x"}]})
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    communicator = HttpCommunicator(application, "POST", "/v1/chat/completions", body=body, headers=headers)
    response = await communicator.get_response(timeout=5)
    assert response["status"] == 404
    assert orjson.loads(response["body"])["error"]["code"] == "model_not_found"


def test_an_answer_is_kept_as_a_recording_by_the_operator_only(rows: None, settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    _, kept = kept_run("ok")
    path = f"/runs/{kept.id}/{kept.turns.all()[0].id}/keep/"
    assert Client(REMOTE_ADDR="10.0.0.5").post(path).status_code == 403
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert not Backend.objects.exists()
    assert Client().post(path).status_code == 302
    assert Client().post(path).status_code == 302
    assert [backend.badge for backend in Backend.objects.all()] == ["RECORDED"]
    listed = shown("/backends/")
    assert 'data-badge="RECORDED"' in listed
    assert str(tmp_path) not in listed


def test_an_answer_that_failed_is_not_kept_as_a_recording(rows: None) -> None:
    _, kept = kept_run("fault-u14")
    assert Client().post(f"/runs/{kept.id}/{kept.turns.all()[0].id}/keep/").status_code == 403
    assert not Backend.objects.exists()


def test_the_speed_page_shows_every_kept_figure_beside_its_reference_and_says_what_is_missed() -> None:
    rows = speed.kept()
    html = unescape(Client().get(reverse("speed")).content.decode())
    lines = re.findall(r"<tr>.*?</tr>", html, re.DOTALL)[1:]
    assert rows
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        shown = [row[name].strip() for name in ("id", "figure", "ours", "reference", "ratio", "target", "note")]
        assert all(text in line for text in shown)
        assert ("missed" in line) == (row["met"] == "NO")


def test_figures_that_are_measured_again_take_the_place_of_the_old_ones(tmp_path: Path, monkeypatch: Any) -> None:
    def row(figure: str, ours: str) -> dict[str, str]:
        return {"id": "P4", "figure": figure, "ours": ours}

    monkeypatch.setattr(speed, "KEPT", tmp_path / "speed.json")
    speed.kept.cache_clear()
    try:
        assert speed.kept() == []
        speed.keep([row("memory", "2"), row("delay", "1")])
        speed.keep([row("close", "5"), row("memory", "3")])
        assert speed.kept() == [row("memory", "3"), row("delay", "1"), row("close", "5")]
    finally:
        monkeypatch.undo()
        speed.kept.cache_clear()
