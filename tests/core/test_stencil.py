"""The stencil: it reads what the parser would read, and leaves everything else to it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.reads import cut
from tests.core.streams import END, at, measured, said
from webapp.core import openai
from webapp.core.meter import StreamMeter
from webapp.core.sse import SSEEvent
from webapp.core.stencil import Stencil

HELLO = said({"content": "Hello"})


def learnt(data: bytes) -> Stencil:
    """Return a stencil that has seen this event."""
    stencil = Stencil()
    stencil.learn(openai.parse(SSEEvent("", data.removeprefix(b"data: ").removesuffix(b"\n\n"))))
    return stencil


def test_the_text_of_events_of_one_shape_is_read():
    events = b"".join(said({"content": text}) for text in ("a", "", "naïve 数据", "😀", "data: {}"))
    assert learnt(HELLO).pieces(events) == [text.encode() for text in ("a", "", "naïve 数据", "😀", "data: {}")]


def test_reasoning_has_a_stencil_of_its_own():
    stencil = learnt(said({"reasoning_content": "Hm"}))
    assert (stencil.kind, stencil.pieces(said({"reasoning_content": "so"}))) == ("reasoning", [b"so"])
    assert stencil.pieces(said({"content": "so"})) is None


OTHERS = {
    "another field": said({"content": "x", "role": "assistant"}),
    "an end": said({"content": "x"}, finish="stop"),
    "a quote": said({"content": 'x"y'}),
    "an escape": said({"content": "x\ny"}),
    "a quote that is no JSON": HELLO.replace(b"Hello", b'He"llo'),
    "a line end inside": HELLO.replace(b"Hello", b"He\nllo"),
    "half a letter": HELLO.replace(b"Hello", "ä".encode()[:1]) + HELLO.replace(b"Hello", "ä".encode()[1:]),
    "a comment between": HELLO + b": ping\n\n" + HELLO,
    "too short for head and tail": HELLO.replace(b'"Hello"', b'"'),
    "half an event": HELLO[:-4],
    "nothing": b"",
}


@pytest.mark.parametrize("events", OTHERS.values(), ids=OTHERS.keys())
def test_whatever_is_not_that_shape_is_left_to_the_parser(events: bytes):
    assert learnt(HELLO).pieces(events) is None


NO_STENCIL = {
    "text that stands there twice": said({"content": "assistant", "role": "assistant"}),
    "text and reasoning": said({"content": "a", "reasoning_content": "b"}),
    "text that ends": said({"content": "a"}, finish="stop"),
    "a piece of a tool call": said({"tool_calls": [{"function": {"arguments": "a"}}]}),
    "escaped text": said({"content": 'say "a"'}),
    "another choice's text": b'data: {"choices":[{"index":1,"delta":{"content":"a"}}]}\n\n',
}


@pytest.mark.parametrize("event", NO_STENCIL.values(), ids=NO_STENCIL.keys())
def test_an_event_that_is_more_than_its_text_makes_no_stencil(event: bytes):
    assert learnt(event).pieces(event) is None


TEXTS = st.text(st.sampled_from('ab{}"\\ :,\n\x00é数😀'), max_size=6)
SHAPES = st.sampled_from(
    [
        lambda text: {"content": text},
        lambda text: {"content": text, "role": "assistant"},
        lambda text: {"reasoning_content": text},
        lambda text: {"reasoning": text, "content": None},
        lambda text: {"content": [{"type": "text", "text": text}]},
        lambda text: {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]},
        lambda text: {"content": text, "reasoning": "ab"},
        lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]},
    ]
)
RESTS = st.sampled_from([{}, {"usage": {"completion_tokens": 3}}, {"finish": "stop"}, {"time_info": {"queue_time": 1}}])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream of runs of events of one shape each, as servers send them and as they never would."""
    stream = b""
    for shape in draw(st.lists(SHAPES, min_size=1, max_size=4)):
        rest = draw(RESTS) if draw(st.booleans()) else {}
        texts = draw(st.lists(TEXTS, min_size=1, max_size=6))
        stream += b"".join(said(shape(text), **rest) for text in texts)
        stream += draw(st.sampled_from([b"", b": ping\n\n", b"data: [1]\n\n", b"event: x\n", b"data: 1\n"]))
    return stream + END


def story(meter: StreamMeter) -> tuple[Any, ...]:
    counts = (meter.chars, meter.malformed, meter.comments, meter.received_bytes, meter.tokens)
    return list(meter.deltas), counts, meter.usage, meter.finish_reason, meter.marks, meter.server_times, meter.error


class Unlearning(Stencil):
    """Leaves everything to the parser."""

    __slots__ = ()

    def learn(self, chunk: openai.Chunk) -> None:
        return


@given(streams(), st.data())
def test_with_and_without_a_stencil_a_stream_comes_to_the_same(stream: bytes, data: st.DataObject):
    reads = data.draw(cut(stream))
    parsed = measured()
    parsed._stencil = Unlearning()
    for n, read in enumerate(reads):
        parsed.receive(read, at(n))
    assert story(measured(*enumerate(reads))) == story(parsed)


def test_a_long_answer_is_parsed_only_where_its_shape_is_new(monkeypatch: pytest.MonkeyPatch):
    calls = count_calls(monkeypatch)
    meter = measured(*((n, said({"content": f"word {n} "})) for n in range(500)))
    assert len(meter.deltas) == 500
    assert calls[0] <= 3


def test_a_server_whose_events_all_differ_is_soon_left_to_the_parser(monkeypatch: pytest.MonkeyPatch):
    calls = count_calls(monkeypatch)
    meter = measured(*((n, said({"content": f"word {n} "}, id=f"chunk-{n}")) for n in range(500)))
    assert len(meter.deltas) == 500
    assert calls[0] <= 510


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls, parse = [0], openai.parse

    def counted(event: SSEEvent) -> openai.Chunk:
        calls[0] += 1
        return parse(event)

    monkeypatch.setattr(openai, "parse", counted)
    return calls


def test_what_is_passed_on_of_a_stream_of_text_is_what_came():
    meter = measured()
    meter.chunks = []
    stream = b"".join(said({"content": text}) for text in ("a", "b", "", 'c"', "d", "e")) + END
    for start in range(0, len(stream), 700):
        meter.receive(stream[start : start + 700], at(start))
    passed = b"".join(chunk.wire or b"data: " + chunk.data + b"\n\n" for chunk in meter.chunks)
    assert passed == stream
    assert openai.assemble(meter.chunks)["choices"][0]["message"]["content"] == 'abc"de'
    assert orjson.loads(meter.chunks[0].data)["object"] == "chat.completion.chunk"
