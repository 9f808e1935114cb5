"""A lane: its steps in order, its stop, what a display reads off it; and that lanes do not move each other's times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostwatch import measurements
from tests.services.truth import lateness_ns
from tests.upstreams import Upstream, silent_port
from tests.upstreams.wire import DONE, REASONING_TOKENS, TEXT, TOKENS, chunk, event
from webapp.backends.openai_http import OpenAIHTTP
from webapp.clock import now_ns
from webapp.core.errors import SHUT_DOWN, Outcome
from webapp.core.scenario import Step
from webapp.core.spec import BackendSpec, Limits, PromptSpec
from webapp.core.stats import percentile
from webapp.core.timing import Delta
from webapp.services.lanes import Lane
from webapp.services.turns import LiveTurn

LONG_S = 20.0


def lane_to(url: str, model: str, *steps: Step, letter: str = "A", **rest: Any) -> Lane:
    spec = BackendSpec("x", "X", url, model, limits=rest.pop("limits", Limits()))
    lane = Lane(letter.lower(), letter, spec, steps or (Step("Hi"),), lambda m: PromptSpec(tuple(m)), **rest)
    lane.origin_ns = now_ns()
    return lane


def ignore(urgent: bool) -> None:
    """For lanes that nobody follows."""


class Sleeps:
    """Records what was slept and sleeps none of it."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)


def launch(lane: Lane, client: OpenAIHTTP, notify: Callable[[bool], None] = ignore) -> Awaitable[object]:
    """Start a lane as a run does, and return what waits for it however it ends."""
    lane.task = asyncio.get_running_loop().create_task(lane.run(client, notify))
    return asyncio.gather(lane.task, return_exceptions=True)


# Steps


async def test_each_step_waits_for_the_one_before_and_is_given_its_answer(up: Upstream, client: OpenAIHTTP):
    steps = (Step("One"), Step("Two: {previous}"), Step("Three: {previous}"))
    lane = lane_to(up.url, "ok", *steps)
    await lane.run(client, ignore)
    prompts = [request.json["messages"] for request in up.requests]
    assert prompts == [
        [{"role": "user", "content": "One"}],
        [{"role": "user", "content": f"Two: {TEXT}"}],
        [{"role": "user", "content": f"Three: {TEXT}"}],
    ]
    for before, after in zip(lane.turns, lane.turns[1:], strict=False):
        assert before.marks.last_token < after.marks.intended <= after.marks.sent
    assert (lane.outcome, lane.ended, len(lane.turns)) == (Outcome.DONE, True, 3)


async def test_the_conversation_so_far_goes_with_the_prompt(up: Upstream, client: OpenAIHTTP):
    history = [{"role": "user", "content": "Before"}, {"role": "assistant", "content": "Said"}]
    await lane_to(up.url, "ok", history=history).run(client, ignore)
    assert up.requests[0].json["messages"] == [*history, {"role": "user", "content": "Hi"}]


async def test_a_step_that_fails_ends_the_lane_and_the_rest_is_not_sent(up: Upstream, client: OpenAIHTTP):
    lane = lane_to(up.url, "fault-u14", Step("One"), Step("Two"))
    await lane.run(client, ignore)
    assert (lane.outcome, lane.error.kind) == (Outcome.TRUNCATED, "truncated")
    assert lane.text == "".join(TOKENS[:3])
    assert len(up.requests) == 1
    assert lane.state == "failed"


async def test_a_tool_takes_its_time_between_steps_and_not_before_the_first(up: Upstream, client: OpenAIHTTP):
    sleeps = Sleeps()
    lane = lane_to(up.url, "ok", Step("One", tool_ms=400), Step("Two", tool_ms=300), Step("Three"))
    await lane.run(client, ignore, sleeps)
    assert sleeps.slept_s == [0.3]
    assert [(pause.name, pause.step) for pause in lane.pauses] == [("tool", 1)]


async def test_a_step_is_not_sent_before_its_text_has_been_spoken(up: Upstream, client: OpenAIHTTP):
    sleeps = Sleeps()
    lane = lane_to(up.url, "ok", Step("One", due_s=100), Step("Two", due_s=200))
    await lane.run(client, ignore, sleeps)
    assert sum(sleeps.slept_s) >= 100 + 200 - LONG_S  # no real time passed, so each was slept for nearly in full
    assert [turn.marks.intended - lane.origin_ns for turn in lane.turns] == [100 * 10**9, 200 * 10**9]
    assert [(pause.name, pause.step) for pause in lane.pauses] == [("waiting", 0), ("waiting", 1)]


async def test_a_step_whose_text_was_spoken_long_ago_is_sent_at_once(up: Upstream, client: OpenAIHTTP):
    sleeps = Sleeps()
    lane = lane_to(up.url, "ok", Step("One", due_s=5))
    lane.origin_ns -= 10 * 10**9
    await lane.run(client, ignore, sleeps)
    assert sleeps.slept_s == []
    assert lane.turns[0].marks.intended == lane.origin_ns + 5 * 10**9  # late, and measured as late


async def test_what_a_lane_took_begins_with_its_first_request_and_not_with_the_run(up: Upstream, client: OpenAIHTTP):
    lane = lane_to(up.url, "ok", Step("One"), Step("Two"))
    assert lane.took_us is None
    lane.origin_ns -= 10 * 10**9  # the run began long before: a sentence was being spoken
    await lane.run(client, ignore)
    spoken = lane.turns[-1].marks.last_token - lane.turns[0].marks.sent
    assert lane.took_us == spoken / 1000 < 10 * 10**6


# Stopping


@pytest.mark.parametrize(("outcome", "sentence"), [(Outcome.STOPPED, ""), (Outcome.INTERRUPTED, SHUT_DOWN)])
async def test_a_stopped_lane_keeps_its_text_and_closes_its_upstream(
    outcome: Outcome, sentence: str, up: Upstream, client: OpenAIHTTP
):
    lane = lane_to(up.url, "fault-u12", Step("One"), Step("Two"))
    three = asyncio.Event()
    ended = launch(lane, client, lambda _: three.set() if lane.delta_count == 3 else None)
    await three.wait()
    lane.stop(outcome)
    await ended
    assert (lane.outcome, lane.turns[0].outcome, lane.error) == (outcome, outcome, None)
    assert lane.text == "".join(TOKENS[:3])
    assert (lane.state, lane.shortfall) == ("stopped", sentence)
    async with asyncio.timeout(LONG_S):
        await up.closed()
    assert len(up.requests) == 1


async def test_a_lane_may_be_stopped_before_it_starts_and_after_it_ended(up: Upstream, client: OpenAIHTTP):
    early = lane_to(up.url, "ok")
    early.stop()
    early.stop(Outcome.INTERRUPTED)
    assert (early.outcome, [turn.outcome for turn in early.turns]) == (Outcome.STOPPED, [Outcome.STOPPED])
    late = lane_to(up.url, "ok")
    await launch(late, client)
    late.stop()
    assert late.outcome is Outcome.DONE


async def test_a_lane_stopped_while_it_waits_for_a_step_says_so_in_that_steps_turn(up: Upstream, client: OpenAIHTTP):
    lane = lane_to(up.url, "ok", Step("One"), Step("Two: {previous}", due_s=100), Step("Three"))

    async def stop_instead(_: float) -> None:
        lane.stop()
        await asyncio.sleep(LONG_S)

    lane.task = asyncio.ensure_future(lane.run(client, ignore, stop_instead))
    await asyncio.gather(lane.task, return_exceptions=True)
    assert [turn.outcome for turn in lane.turns] == [Outcome.DONE, Outcome.STOPPED]
    assert (lane.outcome, lane.state) == (Outcome.STOPPED, "stopped")
    unsent = lane.turns[1]
    assert unsent.prompt.messages[-1]["content"] == f"Two: {TEXT}"
    assert unsent.marks.sent is None
    assert unsent.figures().ttft_ms is unsent.figures().output_tokens is None
    assert len(up.requests) == 1


async def test_a_lane_stopped_while_only_its_connection_is_left_is_done_as_its_turn_is(client: OpenAIHTTP):
    lane = lane_to("http://unused/v1", "ok")

    class Lingering:
        """A backend whose answer is whole and whose connection takes its time to end."""

        @asynccontextmanager
        async def open(self, spec: BackendSpec, prompt: PromptSpec, marks: Any) -> AsyncIterator[Any]:
            async def reads() -> AsyncIterator[bytes]:
                yield event(chunk({"content": "Hi"}, finish="stop")) + DONE

            yield SimpleNamespace(reused=True, simulated=False, reads=reads())
            lane.stop()
            await asyncio.sleep(LONG_S)

    lane.task = asyncio.ensure_future(lane.run(Lingering(), ignore))  # type: ignore[arg-type]
    await asyncio.gather(lane.task, return_exceptions=True)
    assert (lane.outcome, lane.turns[0].outcome) == (Outcome.DONE, Outcome.DONE)


async def test_a_defect_of_ours_ends_the_lane_as_an_error(up: Upstream, client: OpenAIHTTP):
    def broken(urgent: bool) -> None:
        if lane.delta_count and not lane.ended:
            raise RuntimeError("ours")

    lane = lane_to(up.url, "ok")
    await launch(lane, client, broken)
    assert (lane.outcome, lane.error.kind) == (Outcome.ERROR, "internal")


# What a display reads


async def test_watchers_are_told_at_once_of_each_steps_first_text_and_of_the_end(up: Upstream, client: OpenAIHTTP):
    told: list[tuple[int, bool]] = []
    lane = lane_to(up.url, "ok", Step("One"), Step("Two"))
    await lane.run(client, lambda urgent: told.append((lane.delta_count, urgent)))
    assert [count for count, urgent in told if urgent] == [1, len(TOKENS) + 1, 2 * len(TOKENS)]
    assert {count for count, _ in told} >= set(range(1, 2 * len(TOKENS) + 1))


async def test_the_states_of_a_lane_are_in_order_and_end_as_it_did(up: Upstream, client: OpenAIHTTP):
    lane = lane_to(up.url, "ok-reasoning")
    assert lane.state == "waiting"
    await lane.run(client, ignore)
    states = lane.states()
    assert [state.name for state in states] == ["connecting", "prefill", "thinking", "streaming", "done"]
    assert [state.at_ns for state in states] == sorted(state.at_ns for state in states)
    assert states[-1].at_ns == lane.end_ns == lane.turns[0].marks.last_token


async def test_deltas_are_read_with_their_kind_their_step_and_their_time_since_the_origin(
    up: Upstream, client: OpenAIHTTP
):
    lane = lane_to(up.url, "ok-reasoning", Step("One"), Step("Two"))
    await lane.run(client, ignore)
    found = lane.since(0, 1000)
    assert "".join(text for _, _, text, _ in found) == 2 * ("".join(REASONING_TOKENS) + TEXT)
    assert [kind for _, kind, _, _ in found] == 2 * (["r"] * len(REASONING_TOKENS) + ["c"] * len(TOKENS))
    assert [step for _, _, _, step in found] == sorted(step for _, _, _, step in found)
    assert [at_us for at_us, _, _, _ in found] == sorted(at_us for at_us, _, _, _ in found)
    first = lane.turns[0].meter.deltas[0]
    assert found[0][0] == (first.at_ns - lane.origin_ns) // 1000


@given(st.lists(st.integers(0, 7), max_size=5), st.integers(1, 9))
def test_reading_on_from_where_one_was_misses_nothing_and_repeats_nothing(counts: list[int], most: int):
    lane = lane_to("http://h/v1", "m")
    for step, count in enumerate(counts):
        turn = LiveTurn(lane.spec, PromptSpec(()), step=step)
        turn.meter.deltas = [Delta(lane.origin_ns, "content", f"{step}.{n}") for n in range(count)]
        lane.turns.append(turn)
    whole = [f"{step}.{n}" for step, count in enumerate(counts) for n in range(count)]
    read: list[str] = []
    while part := lane.since(len(read), most):
        assert len(part) <= most
        read += [text for _, _, text, _ in part]
    assert read == whole
    assert lane.delta_count == len(whole)
    assert lane.since(len(whole) + 5, most) == []


# Independence: what a lane measures does not depend on who runs beside it


@asynccontextmanager
async def stalled_neighbours(up: Upstream, client: OpenAIHTTP) -> AsyncIterator[list[Lane]]:
    """Run lanes that never answer, that stop in the middle and that fail, until the block is left."""
    with silent_port("http") as silent:
        lanes = [lane_to(silent, "ok"), lane_to(up.url, "fault-u12"), lane_to(up.url, "fault-u10")]
        lanes += [lane_to(up.url, "fault-u13"), lane_to(up.url, "fault-u17")]
        ends = [launch(lane, client) for lane in lanes]
        try:
            yield lanes
        finally:
            for lane in lanes:
                lane.stop()
            await asyncio.gather(*ends)


async def lateness_of(lane: Lane, client: OpenAIHTTP) -> list[int]:
    await launch(lane, client)
    assert lane.outcome is Outcome.DONE
    return sorted(lateness_ns(lane.turns[0]))


def close(beside: list[list[int]], alone: list[list[int]], percent: int, slack_ns: int) -> bool:
    """Compare a percentile of the best of several runs each: a busy host spoils some, a dependence spoils all."""
    best_beside = min(percentile(run, percent) for run in beside)
    best_alone = min(percentile(run, percent) for run in alone)
    return best_beside <= 2 * best_alone + slack_ns


async def test_a_fast_lane_is_as_punctual_beside_stalled_and_failing_ones_as_alone(
    reference: str, up: Upstream, client: OpenAIHTTP
):
    for measurement in measurements():
        alone, beside = [], []
        for _ in range(3):
            alone.append(await lateness_of(lane_to(reference, "ref-2000x1000"), client))
            async with stalled_neighbours(up, client) as neighbours:
                beside.append(await lateness_of(lane_to(reference, "ref-2000x1000"), client))
                assert [lane.outcome for lane in neighbours[:3]] == [Outcome.RUNNING] * 3
        assert min(run[0] for run in alone + beside) > 0
        with measurement:
            assert close(beside, alone, 50, slack_ns=300_000)
            assert close(beside, alone, 99, slack_ns=3_000_000)


async def test_a_slow_lane_is_as_punctual_beside_a_fast_one_as_alone(reference: str, client: OpenAIHTTP):
    for measurement in measurements():
        alone, beside = [], []
        for _ in range(3):
            alone.append(await lateness_of(lane_to(reference, "ref-50x30"), client))
            fast = lane_to(reference, "ref-2000x50000", letter="B")
            ended = launch(fast, client)
            beside.append(await lateness_of(lane_to(reference, "ref-50x30"), client))
            assert not fast.ended
            fast.stop()
            await ended
        with measurement:
            assert close(beside, alone, 50, slack_ns=1_000_000)
            assert close(beside, alone, 90, slack_ns=4_000_000)
