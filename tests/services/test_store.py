"""Rows: what is kept of a run, that its figures come out of the rows as they were, and that no server can lose them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.upstreams import EXPECTED, Upstream, wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.good import ROLE
from tests.upstreams.scripted import SCENARIOS
from tests.upstreams.wire import TEXT, TOKENS
from webapp.core.spec import BackendSpec, Limits
from webapp.models import Comparison, Turn
from webapp.services import store
from webapp.services.archive import lanes_of, verdict_of
from webapp.services.database import in_thread
from webapp.services.runs import Ask, Run, entries_for
from webapp.services.upstreams import upstreams
from webapp.services.writer import writer

pytestmark = pytest.mark.usefixtures("rows")

SHORT = Limits(first_byte_s=0.3, gap_s=0.3, total_s=3)
MODELS = ["ok", "ok-reasoning", "ok-multi", "ok-usage-every", "ok-timeinfo", "ok-timings", "ok-zero", "fault-u13"]


@pytest.fixture(autouse=True)
async def clients() -> AsyncIterator[None]:
    yield
    await upstreams.close()


def spec(up: Upstream, model: str, **fields: Any) -> BackendSpec:
    named = {"slug": model, "label": f"Label of {model}", "limits": SHORT, **fields}
    return BackendSpec(base_url=up.url, model=model, **named)


async def finished(run: Run) -> Comparison:
    """Run it to its end and return what was stored."""
    await run.execute()
    return await stored(run)


async def stored(run: Run) -> Comparison:
    assert await writer.flushed(60)
    return await in_thread(lambda: Comparison.objects.prefetch_related("turns").get(id=run.id))


async def test_figures_and_text_come_out_of_the_rows_as_they_went_in(up: Upstream) -> None:
    prices: dict[str, Any] = {"price_in_usd_per_mtok": 0.5, "price_out_usd_per_mtok": 1.5}
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, model, **prices), "a source") for model in MODELS]))
    kept = await finished(run)
    again = lanes_of(kept)
    assert len(again) == len(MODELS)
    for live, row in zip(run.lanes, again, strict=True):
        assert row.turns[0].figures() == live.turns[0].figures()
        assert row.text == live.text
        assert row.outcome is live.outcome
        assert row.source == "a source"
        assert row.since(0, 999) == live.since(0, 999)
        assert row.turns[0].notes == live.turns[0].notes
        assert row.turns[0].meter.server_times == live.turns[0].meter.server_times
    assert verdict_of(kept) == run.verdict
    assert kept.done
    assert again[0].turns[0].figures().cost_usd is not None


async def test_the_columns_for_lists_are_the_same_figures_in_whole_microseconds(up: Upstream) -> None:
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, "ok"), "")]))
    turn = (await finished(run)).turns.all()[0]
    figures = run.lanes[0].turns[0].figures()
    assert figures.ttft_ms is not None
    assert figures.e2e_ms is not None
    assert turn.ttft_us == round(figures.ttft_ms * 1000)
    assert turn.e2e_us == round(figures.e2e_ms * 1000)
    assert turn.output_tokens == len(TOKENS)


async def test_everything_about_how_it_was_asked_is_kept(up: Upstream) -> None:
    ask = Ask(prompt="Hello", system="Be brief.", max_tokens=7, temperature=0.0, seed=0, full_length=True)
    run = Run(ask, entries_for([(spec(up, "ok"), "")]), asked_by="cli")
    kept = await finished(run)
    turn = kept.turns.all()[0]
    assert (kept.asked_by, kept.prompt, kept.order, kept.owner) == ("cli", "Hello", "parallel", store.OWNER)
    assert {"python", "django", "aiohttp", "platform"} <= set(kept.versions)
    assert (turn.settings["temperature"], turn.settings["seed"], turn.settings["max_tokens"]) == (0.0, 0, 7)
    assert [message["role"] for message in turn.messages] == ["system", "user"]
    assert turn.connection_reused is not None
    assert turn.finish_reason == "stop"


@pytest.mark.parametrize("model", ["fault-u04", "fault-u07", "fault-u12", "fault-u14", "fault-u17", "fault-u25"])
async def test_a_failed_turn_keeps_its_kind_its_sentence_and_its_text_so_far(model: str, up: Upstream) -> None:
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, model), "")]))
    turn = (await finished(run)).turns.all()[0]
    assert turn.outcome == EXPECTED[model].outcome
    assert turn.error_kind == EXPECTED[model].kind
    assert turn.error.endswith(".")
    assert "".join(delta[2] for delta in turn.deltas) == EXPECTED[model].text


@pytest.mark.parametrize("order", ["parallel", "sequential"])
async def test_a_lane_that_was_stopped_before_it_sent_anything_is_kept_as_stopped(order: str, up: Upstream) -> None:
    run = Run(Ask(prompt="Hello", order=order), entries_for([(spec(up, "fault-u12"), ""), (spec(up, "ok"), "")]))

    async def stop_the_second() -> None:
        run.lanes[1].stop()

    run.before_start = stop_the_second
    run.start()
    await up.request(1)
    run.stop()
    await run.wait()
    kept = lanes_of(await stored(run))
    assert [lane.outcome for lane in kept] == [lane.outcome for lane in run.lanes] == ["stopped", "stopped"]
    unsent = kept[1].turns[0].figures()
    assert (unsent.ttft_ms, unsent.e2e_ms, unsent.output_tokens, unsent.tok_s) == (None, None, None, None)
    assert kept[1].turns[0].prompt.messages[-1]["content"] == "Hello"


async def test_a_run_is_on_record_before_its_first_token(up: Upstream) -> None:
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, "fault-u12"), "")]))
    run.start()
    request = await up.request(1)
    kept = await stored(run)
    assert not kept.done
    assert not kept.turns.all()
    run.stop()
    await run.wait()
    kept = await stored(run)
    assert kept.done
    assert kept.turns.all()[0].outcome == "stopped"
    assert request.method == "POST"


async def test_nothing_is_written_between_the_first_and_the_last_byte(up: Upstream) -> None:
    written: list[str] = []
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, "fault-u12"), "")]))
    run.start()
    await up.request(1)
    assert await writer.flushed(60)
    submit = writer.submit
    writer.submit = lambda write: (written.append("a row"), submit(write))[1]  # type: ignore[method-assign]
    try:
        await asyncio.sleep(0.1)
        assert written == []
        run.stop()
        await run.wait()
        assert written == ["a row"]
    finally:
        del writer.submit  # type: ignore[method-assign]
    await stored(run)


HOSTILE: dict[str, dict[str, Any]] = {
    "NUL in the text": {"text": "a\0b"},
    "NUL in a name": {"server_times": {"time_info": {"a\0b": "c\0d"}}},
    "half a surrogate pair": {"raw": b'{"choices":[{"index":0,"delta":{"content":"a\\ud83db"}}]}'},
    "more tokens than a column holds": {"usage": {"prompt_tokens": 10**12, "completion_tokens": 10**12}},
    "more tokens than 64 bits": {"raw": b'{"choices":[],"usage":{"completion_tokens":1' + b"0" * 30 + b"}}"},
    "a very long finish reason": {"finish": "x" * 500},
    "a time that is no number": {"raw": b'{"choices":[],"timings":{"predicted_ms":NaN,"prompt_ms":1e999}}'},
    "a name as long as a page": {"server_times": {"time_info": {"x" * 10_000: 1}}},
    "deep server times": {"raw": b'{"choices":[],"timings":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"},
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
async def test_no_server_can_keep_a_turn_out_of_the_rows(
    sent: dict[str, Any], up: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hostile(x: Exchange) -> None:
        await x.begin()
        await x.send(ROLE)
        await x.tokens((sent.get("text", "text"),))
        if "raw" in sent:
            await x.send(wire.event(sent["raw"]))
        last = wire.chunk({}, finish=sent.get("finish", "stop"), **sent.get("server_times", {}))
        await x.send(wire.event({**last, "usage": sent["usage"]} if "usage" in sent else last))
        await x.send(wire.DONE)
        await x.end()

    monkeypatch.setitem(SCENARIOS, "hostile", hostile)
    lost = writer.lost
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, "hostile"), ""), (spec(up, "ok"), "")]))
    kept = await finished(run)
    assert writer.lost == lost
    assert [turn.outcome for turn in kept.turns.all()] == ["done", "done"]
    assert lanes_of(kept)[1].text == TEXT
    assert all("\0" not in delta[2] for turn in kept.turns.all() for delta in turn.deltas)


async def test_a_turn_has_one_row_however_often_it_is_submitted(up: Upstream) -> None:
    run = Run(Ask(prompt="Hello"), entries_for([(spec(up, "ok"), "")]))
    await finished(run)
    lost = writer.lost
    store.finish(run)
    await stored(run)
    assert writer.lost == lost + 1
    assert await in_thread(Turn.objects.filter(comparison=run.id).count) == 1


def test_storable_cuts_what_is_nested_too_deeply() -> None:
    deep: Any = "bottom"
    for level in range(5000):
        deep = [deep] if level % 2 else {"a": deep}
    assert "…" in repr(store.storable(deep))
    assert store.storable([[["kept"]]]) == [[["kept"]]]


def test_storable_replaces_nul_everywhere_and_leaves_the_rest_alone() -> None:
    value = {"a\0": ["b\0", {"c": "\0"}, 1, None, True, 1.5], "d": "e"}
    assert store.storable(value) == {"a\ufffd": ["b\ufffd", {"c": "\ufffd"}, 1, None, True, 1.5], "d": "e"}


async def test_a_price_that_changes_later_does_not_change_what_a_turn_cost(up: Upstream) -> None:
    backend = spec(up, "ok", price_in_usd_per_mtok=1.0, price_out_usd_per_mtok=2.0)
    run = Run(Ask(prompt="Hello"), entries_for([(backend, "")]))
    before = (await finished(run)).turns.all()[0].figures["cost_usd"]
    run.lanes[0].spec = replace(backend, price_out_usd_per_mtok=99.0)
    kept = await stored(run)
    assert lanes_of(kept)[0].turns[0].figures().cost_usd == before
    assert before == pytest.approx((7 * 1.0 + 13 * 2.0) / 1e6)


def test_a_run_that_is_not_to_be_kept_leaves_no_row(rows: None) -> None:
    run = Run(Ask(prompt="Hello"), [], keep=False)
    store.begin(run)
    store.finish(run)
    assert writer.flush(60)
    assert not Comparison.objects.exists()
