"""A turn over real sockets: what it measures against what was sent, and how its limits and its stop work."""

from __future__ import annotations

import asyncio
import itertools
import time
from statistics import median

import pytest

from tests.backends.answering import answering
from tests.hostwatch import measurements
from tests.services.truth import written_ns
from tests.upstreams import SCENARIOS, Upstream, scripted_upstream, wire
from tests.upstreams.exchange import Exchange
from tests.upstreams.good import ROLE_FIRST_S, TIME_INFO, TIMINGS
from tests.upstreams.wire import REASONING, TEXT, TOKENS
from webapp.backends.openai_http import OpenAIHTTP
from webapp.clock import now_ns
from webapp.core.errors import Outcome
from webapp.core.openai import Chunk
from webapp.core.spec import BackendSpec, Limits, PromptSpec
from webapp.services.turns import LiveTurn, run_turn

LONG_S = 60.0


def turn_to(url: str, model: str = "ok", limits: Limits | None = None, badge: str = "LIVE") -> LiveTurn:
    spec = BackendSpec("x", "X", url, model, badge=badge, limits=limits or Limits())
    return LiveTurn(spec, PromptSpec(({"role": "user", "content": "Hi"},)))


def gaps(times_ns: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise(times_ns)]


# The truth: what is reported is what was sent


async def test_reported_times_are_those_at_which_the_tokens_were_written(reference: str, client: OpenAIHTTP):
    """100 tokens, 10 ms apart, the first 60 ms after arrival. Medians: one late wake-up on a busy host is no error."""
    await run_turn(turn_to(reference, "ref-100x1"), client)  # opens the connection
    for measurement in measurements():
        turns = [turn_to(reference, "ref-100x100+60ms") for _ in range(3)]
        for turn in turns:
            await run_turn(turn, client)
            assert turn.outcome is Outcome.DONE
            assert turn.reused
        figures = [turn.figures() for turn in turns]
        truth = [written_ns(turn) for turn in turns]
        assert [len(times) for times in truth] == [100] * 3
        late = [
            d.at_ns - ns
            for turn, times in zip(turns, truth, strict=True)
            for d, ns in zip(turn.meter.deltas, times, strict=True)
        ]
        assert min(late) > 0  # never before it was written
        ttft_errors_ms = [
            found.ttft_ms - (times[0] - turn.marks.sent) / 1e6
            for found, turn, times in zip(figures, turns, truth, strict=True)
        ]
        assert all(error > 0 for error in ttft_errors_ms)
        assert all(found.ttft_ms >= 60 for found in figures)
        slack_ms = (max(late) - min(late)) / 1e6  # what a busy machine read late is no error of the arithmetic
        for found, times in zip(figures, truth, strict=True):
            span_ms = (times[-1] - times[0]) / 1e6
            assert found.tpot_ms * 99 == pytest.approx(span_ms, abs=slack_ms)
            assert 99_000 / found.tok_s == pytest.approx(span_ms, abs=slack_ms)
        assert [found.output_tokens for found in figures] == [100] * 3
        with measurement:
            assert median(late) < 3_000_000
            assert median(ttft_errors_ms) < 3
            # Gaps and the pace, each against the same figure of the times written.
            assert median(found.icl_ms.p50 for found in figures) == pytest.approx(
                median(median(gaps(times)) for times in truth) / 1e6, abs=1
            )
            assert median(found.tok_s for found in figures) == pytest.approx(100, rel=0.05)


async def test_a_role_chunk_is_no_first_token(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "ok-role-first")
    await run_turn(turn, client)
    (request,) = up.requests
    found = turn.figures()
    assert found.ttft_ms >= ROLE_FIRST_S * 1000 > found.headers_ms
    assert turn.marks.first_event < turn.marks.first_token
    assert turn.marks.first_token >= request.texts[0].at_ns


async def test_every_delta_is_stamped_after_its_own_write_and_before_the_next(up: Upstream, client: OpenAIHTTP):
    up.gap_s = 0.03
    turn = turn_to(up.url)
    await run_turn(turn, client)
    writes = [emission.at_ns for emission in up.requests[0].texts]
    arrivals = [delta.at_ns for delta in turn.meter.deltas]
    assert len(arrivals) == len(writes)
    assert all(sent < arrived for sent, arrived in zip(writes, arrivals, strict=True))
    in_time = sum(arrived < after for arrived, after in zip(arrivals, writes[1:], strict=False))
    assert in_time >= len(writes) - 2  # one pause of the whole machine is allowed


# What a turn is, after it


async def test_a_whole_answer_is_done_with_all_of_it(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "ok-reasoning")
    await run_turn(turn, client)
    assert (turn.outcome, turn.error, turn.notes) == (Outcome.DONE, None, [])
    assert turn.text == TEXT
    assert "".join(delta.text for delta in turn.meter.deltas if delta.kind == "reasoning") == REASONING
    found = turn.figures()
    assert (found.output_tokens, found.tokens_source) == (len(TOKENS) + 6, "usage")
    assert 0 < found.thinking_ms < found.ttfo_ms


@pytest.mark.parametrize(
    ("model", "times"), [("ok-timings", {"llama.cpp": TIMINGS}), ("ok-timeinfo", {"Cerebras": TIME_INFO})]
)
async def test_what_the_server_says_of_its_times_is_kept_apart(
    model: str, times: dict[str, object], up: Upstream, client: OpenAIHTTP
):
    turn = turn_to(up.url, model)
    await run_turn(turn, client)
    assert turn.meter.server_times == times


async def test_whoever_passes_an_answer_on_gets_every_chunk_once_and_in_order(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url)
    turn.meter.chunks = heard = list[Chunk]()
    await run_turn(turn, client)
    assert "".join(chunk.content for chunk in heard) == TEXT
    assert heard[-1].done


async def test_the_text_ahead_of_an_error_in_the_same_read_is_passed_on(client: OpenAIHTTP):
    async with scripted_upstream(gap_s=0) as up:
        turn = turn_to(up.url, "fault-u17")
        turn.meter.chunks = heard = list[Chunk]()
        await run_turn(turn, client)
    assert turn.outcome is Outcome.ERROR
    assert "".join(chunk.content for chunk in heard) == turn.text == "".join(TOKENS[:3])


async def test_the_time_of_the_intention_is_kept_where_it_is_given(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url)
    turn.marks.intended = given = now_ns() - 1_000_000
    await run_turn(turn, client)
    assert turn.marks.intended == given
    other = turn_to(up.url)
    await run_turn(other, client)
    assert given < other.marks.intended <= other.marks.sent


@pytest.mark.parametrize(
    ("badge", "simulated", "shown"),
    [
        ("LIVE", False, "LIVE"),
        ("LIVE", True, "SIMULATED"),
        ("SIMULATED", False, "SIMULATED"),
        ("RECORDED", True, "RECORDED"),
    ],
)
def test_a_server_that_plays_a_model_is_never_shown_as_live(badge: str, simulated: bool, shown: str):
    turn = turn_to("http://h/v1", badge=badge)
    turn.simulated = simulated
    assert turn.badge == shown


# Limits


def in_time(turn: LiveTurn) -> float:
    """Return the seconds from the beginning to the end of a turn."""
    return (turn.marks.end - turn.marks.intended) / 1e9


async def test_a_short_limit_is_kept_even_behind_long_ones(up: Upstream, client: OpenAIHTTP):
    for measurement in measurements():
        turn = turn_to(up.url, "fault-u12", Limits(connect_s=30, write_s=30, first_byte_s=30, gap_s=0.3))
        async with asyncio.timeout(LONG_S):
            await run_turn(turn, client)
        assert turn.error.kind == "gap_timeout"
        assert in_time(turn) >= 0.3
        with measurement:
            assert in_time(turn) < 2


async def test_the_limit_on_the_whole_ends_a_stream_that_flows(up: Upstream, client: OpenAIHTTP):
    up.gap_s = 0.1
    turn = turn_to(up.url, "ok", Limits(total_s=0.5))
    async with asyncio.timeout(LONG_S):
        await run_turn(turn, client)
        request = await up.closed()
    assert (turn.outcome, turn.error.kind) == (Outcome.TIMEOUT, "total_timeout")
    assert TEXT.startswith(turn.text)
    assert turn.text
    assert request.finished_ns is None


async def test_a_slow_first_token_is_within_the_limit_on_gaps(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "ok-role-first", Limits(gap_s=0.1, first_byte_s=5))
    await run_turn(turn, client)
    assert turn.outcome is Outcome.DONE


async def test_a_process_that_was_held_up_does_not_take_its_own_silence_for_the_backends(
    up: Upstream, client: OpenAIHTTP, monkeypatch: pytest.MonkeyPatch
):
    async def held_up(x: Exchange) -> None:
        await x.begin()
        await x.tokens(TOKENS[:3])
        await x.send(wire.event(wire.chunk({"content": TOKENS[3]})))
        hold_up(0.3)  # what was just sent is there to be read, and the limit on gaps has passed
        await x.tokens(TOKENS[4:])
        await x.finish(len(TOKENS))

    monkeypatch.setitem(SCENARIOS, "held-up", held_up)
    turn = turn_to(up.url, "held-up", Limits(gap_s=0.2))
    await run_turn(turn, client)
    assert (turn.outcome, turn.error) == (Outcome.DONE, None)
    assert turn.text == TEXT


def hold_up(seconds: float) -> None:
    """Keep this whole process from doing anything, as a host does that has no time for it."""
    time.sleep(seconds)


async def test_an_answer_that_was_whole_stays_so_while_its_connection_is_waited_for(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "fault-u16-open", Limits(gap_s=0.05))
    await run_turn(turn, client)
    assert (turn.outcome, turn.error) == (Outcome.DONE, None)


async def test_a_backends_own_limit_on_lines_is_kept(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "ok", Limits(line_bytes=100))
    await run_turn(turn, client)
    assert turn.error.kind == "too_large"


# Stopping


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.INTERRUPTED])
async def test_cancelling_keeps_the_text_so_far_and_says_who_did_it(outcome: Outcome, up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "fault-u12")
    turn.if_cancelled = outcome
    heard = asyncio.Event()
    task = asyncio.create_task(run_turn(turn, client, lambda: heard.set() if len(turn.meter.deltas) == 3 else None))
    await heard.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert (turn.outcome, turn.error) == (outcome, None)
    assert turn.text == "".join(TOKENS[:3])
    assert turn.marks.last_token <= turn.marks.end
    async with asyncio.timeout(LONG_S):
        await up.closed()


async def test_a_stop_after_the_end_marker_leaves_the_answer_done(up: Upstream, client: OpenAIHTTP):
    turn = turn_to(up.url, "fault-u16-open")
    task = asyncio.create_task(run_turn(turn, client))
    while turn.marks.end is None:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert turn.outcome is Outcome.DONE


async def test_a_listener_that_fails_ends_its_own_turn_and_closes_the_upstream(up: Upstream, client: OpenAIHTTP):
    def fail() -> None:
        if turn.meter.deltas:
            raise RuntimeError("ours")

    turn = turn_to(up.url, "fault-u12")
    with pytest.raises(RuntimeError):
        await run_turn(turn, client, fail)
    assert (turn.outcome, turn.error.kind) == (Outcome.ERROR, "internal")
    assert "please report it" in turn.error.message
    async with asyncio.timeout(LONG_S):
        await up.closed()


# Secrets


@pytest.mark.parametrize("padding", [0, 280, 290])
async def test_an_error_in_mid_stream_that_repeats_the_key_is_shown_without_it_even_where_it_is_cut(
    padding: int, client: OpenAIHTTP, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CANARY", "sk-canary-0123456789abcdef")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    said = b'data: {"error": {"message": "' + b"x" * padding + b' sk-canary-0123456789abcdef"}}\n\n'
    async with answering(head + said) as url:
        turn = LiveTurn(BackendSpec("x", "X", url, "ok", key_ref="env:CANARY"), PromptSpec(()))
        await run_turn(turn, client)
    assert turn.error.kind == "upstream_error"
    assert "(key)" in turn.error.message
    assert "sk-can" not in turn.error.message
