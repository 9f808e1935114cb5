"""Pages of kept runs: the list, a comparison, a turn, its recording, and running it again."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.upstreams import wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.scripted import SCENARIOS
from tests.upstreams.wire import REASONING, TEXT
from tests.web.kept import kept_run, shown
from webapp.models import Backend, Comparison, Turn
from webapp.services import backends
from webapp.services.scenarios import scenarios


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


async def at_once(x: Exchange) -> None:
    await x.begin()
    words = [f"word{number} " for number in range(9)]
    await x.send(b"".join(wire.event(wire.chunk({"content": word})) for word in words), "".join(words))
    await x.finish(len(words))


def test_a_gap_among_chunks_that_came_in_one_read_is_not_known(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCENARIOS, "at-once", at_once)
    _, kept = kept_run("at-once", "ok")
    page = shown(f"/runs/{kept.id}/")
    together, apart = page.split('class="readout"')[1:]
    assert figure(together, "icl_p50") == "n/a"
    assert float(figure(apart, "icl_p50")) > 0


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
    stamps = {"arrived_ns": 0, "first_ns": 1_000_000, "last_ns": 2_000_000, "first_tokens": 1, "late_ns": 203_400_000}
    account = {"parts": {"weights": 3e-3, "kv": 1e-3, "unheard of": 9.0, "prefill": "odd"}, "emitted": stamps}
    Turn.objects.update(server_times={"Cerebras": account}, badge="SIMULATED")
    figures = run.lanes[0].turns[0].figures()
    assert figures.ttft_ms is not None
    truth = Client().get(f"/runs/{kept.id}/record.json").json()["lanes"][0]["truth"]
    assert truth["ttft_off_ms"] == pytest.approx(figures.ttft_ms - 1)
    assert truth["late_ms"] == 203.4
    page = shown(f"/runs/{kept.id}/{turn.id}/")
    assert f"TTFT {figures.ttft_ms - 1:+.2f} ms" in page
    assert "its own lateness up to 203.40 ms" in page
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


def again(kept: Comparison) -> str:
    """Return the arena as "Run it again" on the run's page opens it."""
    found = re.search(r'class="button" href="(/\?[^"]+)"', shown(f"/runs/{kept.id}/"))
    assert found
    return shown(unescape(found.group(1)))


def test_running_it_again_leads_to_the_same_lanes_and_prompt_and_sends_nothing(rows: None) -> None:
    backends.seed()
    run, kept = kept_run("ok", prompt="Once & again?")
    Turn.objects.update(backend_slug="oci-llama-70b")
    page = again(kept)
    assert "Once &amp; again?" in page
    assert page.count('class="lane"') == 1
    assert Comparison.objects.get().id == run.id


@pytest.mark.parametrize("slug", ["", "chat"])
def test_running_it_again_asks_what_was_asked_to_the_last_setting(slug: str, rows: None) -> None:
    prompt = "Word " * 500 + "END"
    settings = {"system": "Be brief.", "max_tokens": 50, "temperature": 0.7, "top_p": 0.9, "seed": 42}
    chosen = {"scenario": scenarios().get(slug), "order": "sequential", "cold": True, "full_length": True}
    _, kept = kept_run("ok", prompt=prompt, **settings, **chosen)
    page = again(kept)
    assert f">{prompt}</textarea>" in page
    assert ">Be brief.</textarea>" in page
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        assert re.search(rf'name="{name}"[^>]* value="{settings[name]}"', page), name
    assert re.search('name="cold" checked', page)
    assert re.search('name="full_length" checked', page)
    assert '<option value="sequential" selected>' in page
    assert f'name="scenario" value="{slug}"' in page


def test_running_it_again_goes_on_from_the_same_conversation(rows: None) -> None:
    backends.seed()
    _, kept = kept_run("ok", prompt="And then?", system="Be brief.")
    before = [{"role": "user", "content": "What first?"}, {"role": "assistant", "content": "The first thing."}]
    turn = kept.turns.all()[0]
    turn.messages[1:1] = before
    turn.backend_slug = "oci-llama-70b"
    turn.save()
    page = again(kept)
    assert re.search(r'class="question">What first\?<.*The first thing\.', page, re.DOTALL)
    assert page.count("Be brief.") == 1
    Comparison.objects.update(asked_by="api")
    assert "The first thing" not in again(kept)


def test_running_it_again_names_the_backends_that_are_no_more(rows: None) -> None:
    backends.seed()
    _, kept = kept_run("ok", "ok-multi")
    Turn.objects.filter(lane=1).update(backend_slug="oci-llama-70b")
    page = again(kept)
    assert page.count('class="lane"') == 1
    assert "no longer among the backends: Label of ok." in page


@pytest.mark.parametrize("run_id", ["none", "\0", "x" * 3000])
def test_running_a_run_again_that_is_not_there_is_said_in_the_arena_of_a_first_visit(run_id: str, rows: None) -> None:
    backends.seed()
    page = Client().get("/", {"again": run_id}).content.decode()
    assert "The run to run again is not kept here" in page
    assert page.count('class="lane"') == 4


def figure(page: str, key: str) -> str:
    found = re.search(rf'data-key="{key}".*?class="num">([^<]*)<', page)
    assert found
    return found.group(1)


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
