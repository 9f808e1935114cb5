"""The meter: what one stream's bytes and their times come to, however they are cut, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.reads import cut, every_way
from tests.core.streams import END, ROLE, STOP, at, measured, said
from tests.upstreams.faults import whole_stream
from tests.upstreams.good import TIME_INFO, TIMINGS
from tests.upstreams.replay import CAPTURES, DATA
from tests.upstreams.streams import BAD_JSON, ERROR_EVENT, INVALID_UTF8, LONE_SURROGATE, UNICODE_STREAM, WRONG_SHAPES
from tests.upstreams.wire import DONE, TEXT, UNICODE_TEXT, event, usage
from webapp.core import openai
from webapp.core.errors import Outcome, StreamError
from webapp.core.meter import FORGIVEN_EVENTS, StreamMeter
from webapp.core.openai import Usage
from webapp.core.spec import Limits
from webapp.core.timing import Delta

HI = said({"content": "Hi"})


def text_of(meter: StreamMeter, kind: str = "content") -> str:
    return "".join(delta.text for delta in meter.deltas if delta.kind == kind)


def ending(meter: StreamMeter) -> list[str] | str:
    """Return the notes of a good ending, or the kind of a bad one."""
    try:
        return meter.finish(at(9999))
    except StreamError as error:
        return error.kind


def result(reads: list[bytes], limits: Limits | None = None) -> tuple[Any, ...]:
    """Return everything that a stream came to, but for the number of its reads."""
    meter = measured(*((0, data) for data in reads), limits=limits)
    end = ending(meter)
    counts = (meter.malformed, meter.chars, meter.comments)
    return meter.deltas, meter.usage, meter.finish_reason, meter.server_times, meter.marker, counts, end, meter.marks


# The same bytes, however cut

STREAMS = {
    "good": whole_stream(),
    "letters of many bytes": UNICODE_STREAM,
    "usage in every chunk": ROLE
    + said({"content": "a"}, usage=usage(1))
    + said({"content": "b"}, usage=usage(3))
    + END,
    "times of the server": said({"content": "a"})
    + said({}, finish="stop", timings=TIMINGS, time_info=TIME_INFO)
    + DONE,
    "an error in the middle": HI + ERROR_EVENT + HI + END,
    "words after the end": HI + END + HI + ERROR_EVENT,
    "bad events, few": HI + BAD_JSON * FORGIVEN_EVENTS + HI + END,
    "bad events, many": HI + BAD_JSON * (FORGIVEN_EVENTS + 1) + HI + END,
    "broken letters": INVALID_UTF8 + LONE_SURROGATE + END,
    "cut short": whole_stream()[: len(whole_stream()) // 2],
    "no marker": HI + STOP,
    "comments": b": ping\n\n" + HI + b":\n\n" + END,
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_comes_to_the_same_however_it_is_cut(stream: bytes):
    whole = result([stream])
    for reads in every_way(stream):
        assert result(reads) == whole


LIMITS = {
    "line": (Limits(line_bytes=400), HI + event(b"x" * 500) + HI + END),
    "body": (Limits(body_bytes=len(HI) * 2 + 10), HI * 5 + END),
    "events": (Limits(events=2), HI * 5 + END),
}


@pytest.mark.parametrize(("limits", "stream"), LIMITS.values(), ids=LIMITS.keys())
def test_a_stream_over_a_limit_keeps_what_came_before_however_it_is_cut(limits: Limits, stream: bytes):
    whole = result([stream], limits)
    assert whole[-2] == "too_large"
    assert {delta.text for delta in whole[0]} == {"Hi"}
    for reads in every_way(stream):
        assert result(reads, limits) == whole


@pytest.mark.parametrize("file", sorted(name for name in CAPTURES if name.endswith(".sse")))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_real_servers_sent_comes_to_the_same_however_it_is_cut(file: str, data: st.DataObject):
    body = (DATA / file).read_bytes()
    assert result(data.draw(cut(body))) == result([body])


def test_text_is_whole_when_a_letter_is_split_between_reads():
    for reads in ([UNICODE_STREAM], [UNICODE_STREAM[i : i + 1] for i in range(len(UNICODE_STREAM))]):
        assert text_of(measured(*((0, data) for data in reads))) == UNICODE_TEXT


# Marks


def test_each_mark_is_the_arrival_of_its_own_event():
    meter = measured(
        (20, b": ping\n\n"),
        (30, ROLE),
        (200, said({"reasoning": "Hm"})),
        (300, said({"content": "Hi"})),
        (400, said({"content": "!"})),
        (410, STOP),
        (420, said(None, usage=usage(3))),
        (430, DONE),
    )
    meter.finish(at(440))
    assert meter.marks.since(at(0)) == {
        "intended": 0,
        "connect": None,
        "connected": None,
        "sent": 0,
        "headers": None,
        "first_event": 30_000_000,
        "first_token": 200_000_000,
        "first_output": 300_000_000,
        "last_token": 400_000_000,
        "usage": 420_000_000,
        "end": 440_000_000,
    }


@pytest.mark.parametrize(
    "empty",
    [
        ROLE,
        said({"role": "assistant", "content": None}),
        said({}),
        said({"content": ""}),
        said({"reasoning": ""}),
        said(None),
        said(None, usage=usage(0)),
        said({"content": "other"}, index=1),
        b": ping\n\n",
        BAD_JSON,
    ],
)
def test_ttft_ignores_a_chunk_without_text(empty: bytes):
    meter = measured((20, empty), (90, HI), (95, empty))
    assert meter.marks.first_token == meter.marks.first_output == meter.marks.last_token == at(90)
    assert len(meter.deltas) == 1


def test_a_tool_call_is_a_first_token_and_a_first_output():
    meter = measured((50, said({"tool_calls": [{"index": 0, "function": {"name": "weather"}}]})))
    assert meter.marks.first_token == meter.marks.first_output == at(50)
    assert meter.deltas == [Delta(at(50), "tool", "weather")]


def test_reasoning_is_a_first_token_but_no_first_output():
    meter = measured((50, said({"reasoning_content": "Hm"})))
    assert (meter.marks.first_token, meter.marks.first_output) == (at(50), None)


def test_a_chunk_with_reasoning_and_answer_is_both_at_one_instant():
    meter = measured((50, said({"reasoning": "Hm", "content": "Hi"}, usage=usage(2))))
    assert meter.deltas == [Delta(at(50), "reasoning", "Hm", 2), Delta(at(50), "content", "Hi", 0)]


def test_an_event_in_two_reads_arrives_with_the_second():
    meter = measured((10, HI[:-1]), (30, HI[-1:] + HI[:9]), (50, HI[9:]))
    assert [delta.at_ns for delta in meter.deltas] == [at(30), at(50)]


def test_events_of_one_read_share_its_time():
    assert [delta.at_ns for delta in measured((10, HI * 3)).deltas] == [at(10)] * 3


def test_no_text_leaves_no_first_and_no_last_token():
    meter = measured((10, ROLE), (20, END))
    assert meter.finish(at(30)) == ["empty answer"]
    assert (meter.marks.first_token, meter.marks.first_output, meter.marks.last_token) == (None, None, None)


def chunks_of(reads: list[bytes]) -> list[openai.Chunk]:
    """Return what the meter passes on of each of these reads."""
    meter = measured()
    meter.chunks = []
    for n, data in enumerate(reads):
        assert meter.receive(data, at(n)) == any(ends in data for ends in (b"\n\n", b"\r\r", b"\r\n\r\n"))
    return meter.chunks


def test_every_event_is_passed_on_with_the_read_that_completed_it():
    chunks = chunks_of([ROLE + HI + HI[:9], HI[9:] + STOP, DONE])
    assert "".join(chunk.content for chunk in chunks) == "HiHi"
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_nobody_keeps_chunks_that_nobody_passes_on():
    assert measured((0, ROLE + HI + END)).chunks is None


# Token counts


def test_running_usage_tells_the_tokens_of_each_chunk():
    counts = [1, 4, 4, 9]
    meter = measured((0, ROLE), *((n, said({"content": "x"}, usage=usage(n))) for n in counts))
    assert [delta.tokens for delta in meter.deltas] == [1, 3, 0, 5]
    assert meter.usage == Usage(7, 9)


def test_running_usage_may_begin_at_nought_with_the_role():
    meter = measured((0, said({"role": "assistant"}, usage=usage(0))), (1, said({"content": "x"}, usage=usage(3))))
    assert [delta.tokens for delta in meter.deltas] == [3]


def test_a_total_in_the_last_text_chunk_is_not_that_chunks_own():
    meter = measured((0, HI), (1, HI), (2, said({"content": "!"}, finish="stop", usage=usage(30))))
    assert [delta.tokens for delta in meter.deltas] == [None, None, None]
    assert meter.usage == Usage(7, 30)


def test_usage_without_a_count_tells_nothing_of_the_chunks():
    meter = measured((0, said({"content": "x"}, usage={"prompt_tokens": 7})))
    assert meter.deltas[0].tokens is None
    assert meter.tokens == (1, False)


def test_tokens_are_estimated_until_the_server_has_counted():
    meter = measured((0, HI), (1, HI))
    assert meter.tokens == (2, False)
    meter.receive(said(None, usage=usage(5)), at(2))
    assert meter.tokens == (5, True)


def test_a_servers_own_times_are_gathered_by_vendor():
    meter = measured((0, HI), (1, said({}, finish="stop", timings=TIMINGS)), (2, said(None, time_info=TIME_INFO)))
    assert meter.server_times == {"llama.cpp": TIMINGS, "Cerebras": TIME_INFO}


# Endings

ENDINGS: dict[str, tuple[bytes, list[str] | str]] = {
    "proper": (HI + END, []),
    "marker without finish reason": (HI + DONE, []),
    "finish reason without marker": (HI + STOP, ["no end marker ([DONE])"]),
    "marker without its blank line": (HI + STOP + DONE[:-1], ["no end marker ([DONE])"]),
    "no text": (ROLE + END, ["empty answer"]),
    "a bad event": (HI + BAD_JSON + END, ["1 malformed event(s) skipped"]),
    "neither": (HI, "truncated"),
    "nothing": (b"", "truncated"),
    "only usage": (HI + said(None, usage=usage(2)), "truncated"),
    "another choice's finish reason": (HI + said({}, index=1, finish="stop"), "truncated"),
    "error": (HI + ERROR_EVENT, "upstream_error"),
    "error after the finish reason": (HI + STOP + ERROR_EVENT, "upstream_error"),
    "error, then the marker": (HI + ERROR_EVENT + DONE, "upstream_error"),
    "error after the marker": (HI + END + ERROR_EVENT, []),
    "an HTML page": (b"<html>\n\n<p>no</p>\n\n", "truncated"),
}


@pytest.mark.parametrize(("stream", "expected"), ENDINGS.values(), ids=ENDINGS.keys())
def test_a_stream_ends_as_its_bytes_say(stream: bytes, expected: list[str] | str):
    meter = measured((5, stream))
    assert ending(meter) == expected
    assert meter.marks.end == at(9999)
    assert text_of(meter) in ("Hi", "")


def test_nothing_is_taken_after_the_end_marker():
    meter = measured((0, HI + END + HI), (1, HI), (2, ERROR_EVENT))
    assert text_of(meter) == "Hi"
    assert (meter.ended, meter.marker, meter.error) == (True, True, None)


def test_text_in_the_same_read_as_an_error_is_kept_and_handed_on():
    meter = measured()
    meter.chunks = []
    assert meter.receive(HI + HI + ERROR_EVENT + HI, at(1))
    assert [chunk.content for chunk in meter.chunks] == ["Hi", "Hi"]
    assert meter.ended
    assert not meter.marker
    assert not meter.receive(HI + END, at(2))
    with pytest.raises(StreamError, match="died"):
        meter.finish(at(3))
    assert text_of(meter) == "HiHi"


def test_five_bad_events_are_forgiven_and_the_sixth_is_not():
    shapes = [event(shape) for shape in WRONG_SHAPES]
    assert ending(measured((0, HI + b"".join(shapes) + END)))[0].endswith("malformed event(s) skipped")
    meter = measured((0, HI), *((n, BAD_JSON) for n in range(FORGIVEN_EVENTS)))
    assert not meter.ended
    meter.receive(BAD_JSON, at(9))
    assert meter.error is not None
    assert (meter.error.kind, meter.error.outcome, meter.error.permanent) == ("protocol", Outcome.ERROR, True)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(line_bytes=20 << 10), "one line of over 20 KiB"),
        (Limits(body_bytes=1 << 20), "over 1 MiB"),
        (Limits(events=1000), "over 1,000 events"),
    ],
)
def test_every_size_limit_ends_the_stream_and_says_which(limits: Limits, words: str):
    meter = measured((0, HI), limits=limits)
    for _ in range(2000):
        meter.receive(event(b"{" + b" " * 1024 + b"}") if limits.line_bytes == 1 << 20 else b"x" * 1024, at(1))
    assert meter.error is not None
    assert (meter.error.kind, meter.error.outcome) == ("too_large", Outcome.ERROR)
    assert words in meter.error.message
    assert meter.received_bytes < 2 << 20  # what came after the end was not even counted


def test_a_whole_good_stream():
    meter = measured((7, whole_stream()))
    assert meter.finish(at(8)) == []
    assert text_of(meter) == TEXT
    assert meter.finish_reason == "stop"
