"""Steps with a timetable, as live translation and the agent loop have them, on real sockets with short times."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.hostwatch import measurements
from tests.upstreams import Upstream
from tests.upstreams.wire import TEXT
from webapp.core.scenario import Scenario, Step
from webapp.core.spec import BackendSpec
from webapp.models import Comparison
from webapp.services.archive import lanes_of
from webapp.services.database import in_thread
from webapp.services.runs import Ask, Run, caption_lags_ms, entries_for
from webapp.services.upstreams import upstreams
from webapp.services.writer import writer

pytestmark = pytest.mark.usefixtures("rows")

DUE_S = (0.05, 0.3, 0.31)


@pytest.fixture(autouse=True)
async def clients() -> AsyncIterator[None]:
    yield
    await upstreams.close()


def scenario(figure: str, *steps: Step) -> Scenario:
    return Scenario(slug="spoken", key=1, title="Spoken", blurb="b", figure=figure, steps=steps)


async def run_of(up: Upstream, what: Scenario) -> Run:
    specs = [(BackendSpec(slug, slug, up.url, "ok"), "") for slug in ("a", "b")]
    run = Run(Ask(prompt=what.steps[0].prompt, scenario=what), entries_for(specs))
    await run.execute()
    assert await writer.flushed(60)
    return run


async def test_no_sentence_is_sent_before_it_was_spoken_nor_before_the_one_before_was_translated(up: Upstream) -> None:
    steps = [Step(f"Sentence {number}", due_s=due_s) for number, due_s in enumerate(DUE_S)]
    for measurement in measurements():
        up.requests.clear()
        run = await run_of(up, scenario("caption_lag", *steps))
        chats = [request for request in up.requests if request.method == "POST"]
        assert len(chats) == 6
        for lane in run.lanes:
            sent = [(turn.marks.sent or 0) - lane.origin_ns for turn in lane.turns]
            ended = [(turn.marks.end or 0) - lane.origin_ns for turn in lane.turns]
            for at_ns, due_s in zip(sent, DUE_S, strict=True):
                assert at_ns >= due_s * 1e9
            assert sent[2] >= ended[1]
        with measurement:
            for lane in run.lanes:
                assert lane.turns[1].marks.sent - lane.origin_ns < 0.3e9 + 0.2e9
                assert [state.name for state in lane.states()].count("waiting") == 2


async def test_the_caption_lag_runs_from_the_last_spoken_word(up: Upstream) -> None:
    run = await run_of(up, scenario("caption_lag", *[Step("x", due_s=due_s) for due_s in DUE_S]))
    for lane in run.lanes:
        lags = caption_lags_ms(lane)
        last_tokens = [turn.marks.last_token or 0 for turn in lane.turns]
        expected = [(at - lane.origin_ns) / 1e6 - due_s * 1e3 for at, due_s in zip(last_tokens, DUE_S, strict=True)]
        assert lags == pytest.approx(expected, abs=0.001)
        assert lags[2] > lags[1]  # it had to wait for the sentence before
    kept = await in_thread(Comparison.objects.prefetch_related("turns").get, id=run.id)
    assert [caption_lags_ms(lane) for lane in lanes_of(kept)] == [caption_lags_ms(lane) for lane in run.lanes]


async def test_a_tool_takes_its_time_and_the_next_step_has_the_answer(up: Upstream) -> None:
    run = await run_of(up, scenario("agent", Step("Plan"), Step("Use: {previous}", tool_ms=80)))
    for lane in run.lanes:
        first, second = lane.turns
        assert (second.marks.sent or 0) - (first.marks.end or 0) >= 80e6
        assert second.prompt.messages[-1]["content"] == f"Use: {TEXT}"
        assert [state.name for state in lane.states()].count("tool") == 1
