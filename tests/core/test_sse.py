"""The event stream decoder against the WHATWG rules, and the encoder against the decoder."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.reads import cut, every_way
from webapp.core.errors import StreamError
from webapp.core.sse import SSEDecoder, SSEEvent, encode_event

# Streams and the (name, data) of the events in them. The cases are those of the standard's own examples and of
# web-platform-tests' eventsource/format-*.
VECTORS: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {
    "nothing": (b"", []),
    "one event": (b"data: a\n\n", [("", b"a")]),
    "two events": (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    "two data lines": (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
    "no blank line at the end": (b"data: a\n\ndata: lost\n", [("", b"a")]),
    "no line end at the end": (b"data: a\n\ndata: lost", [("", b"a")]),
    "blank lines between": (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    "no space": (b"data:a\n\n", [("", b"a")]),
    "one space is dropped, not two": (b"data:  a\n\n", [("", b" a")]),
    "a tab is not a space": (b"data:\ta\n\n", [("", b"\ta")]),
    "space before the colon": (b"data : a\n\ndata: b\n\n", [("", b"b")]),
    "space before the field": (b" data: a\n\ndata: b\n\n", [("", b"b")]),
    "colons in the value": (b"data: a:b: c\n\n", [("", b"a:b: c")]),
    "data without colon": (b"data\n\n", [("", b"")]),
    "data without colon, twice": (b"data\ndata\n\n", [("", b"\n")]),
    "data with nothing after the colon": (b"data:\n\n", [("", b"")]),
    "comment": (b": ping\n\n:\n\ndata: a\n\n", [("", b"a")]),
    "comment inside an event": (b"data: a\n: ping\ndata: b\n\n", [("", b"a\nb")]),
    "a comment that looks like data": (b":data: a\n\n", []),
    "unknown fields": (b"foo: a\nDATA: b\ndatax: c\nid: 1\nretry: 7\ndata: d\n\n", [("", b"d")]),
    "named": (b"event: error\ndata: a\n\n", [("error", b"a")]),
    "the last name counts": (b"event: a\nevent: b\ndata: c\n\n", [("b", b"c")]),
    "an empty name is none": (b"event: a\nevent\ndata: c\n\n", [("", b"c")]),
    "a name without data is forgotten": (b"event: a\n\ndata: b\n\n", [("", b"b")]),
    "a name lasts one event": (b"event: a\ndata: b\n\ndata: c\n\n", [("a", b"b"), ("", b"c")]),
    "name after the data": (b"data: b\nevent: a\n\n", [("a", b"b")]),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
    "only one BOM": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("", b"b")]),
    "no BOM later on": (b"data: a\n\n\xef\xbb\xbfdata: lost\n\n", [("", b"a")]),
    "half a BOM": (b"\xef\xbbdata: lost\n\ndata: a\n\n", [("", b"a")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n", [("", b"a"), ("", b"b\nc")]),
    "CR": (b"data: a\r\rdata: b\rdata: c\r\r", [("", b"a"), ("", b"b\nc")]),
    "CR, LF and CRLF mixed": (b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r", [("", b"a\nb\nc"), ("", b"d")]),
    "CR LF LF is two line ends": (b"data: a\r\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    "LF CR is two line ends": (b"data: a\n\rdata: b\n\n", [("", b"a"), ("", b"b")]),
    "CR CR LF is two line ends": (b"data: a\r\r\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    "U+2028, U+2029 and U+0085 are text": (
        "data: a\u2028b\u2029c\u0085d\x0b\x0c\x1c\n\n".encode(),
        [("", "a\u2028b\u2029c\u0085d\x0b\x0c\x1c".encode())],
    ),
    "NUL is text": (b"data: a\x00b\n\n", [("", b"a\x00b")]),
    "broken UTF-8 stays as it came": (b"data: a\xff\xc3\n\n", [("", b"a\xff\xc3")]),
    "letters of many bytes": ("data: Grüße 世界 👩\u200d🚀\n\n".encode(), [("", "Grüße 世界 👩\u200d🚀".encode())]),
}


def events_of(reads: list[bytes], max_line_bytes: int = 1 << 20) -> Iterator[SSEEvent]:
    decoder = SSEDecoder(max_line_bytes)
    for data in reads:
        yield from decoder.feed(data)


def decode(reads: list[bytes], max_line_bytes: int = 1 << 20) -> list[SSEEvent]:
    return list(events_of(reads, max_line_bytes))


@pytest.mark.parametrize(("stream", "expected"), VECTORS.values(), ids=VECTORS.keys())
def test_a_stream_has_its_events_however_it_is_cut(stream: bytes, expected: list[tuple[str, bytes]]):
    for reads in every_way(stream):
        assert [(event.name, event.data) for event in decode(reads)] == expected, reads


def by_the_book(stream: bytes) -> list[SSEEvent]:
    """Interpret a whole stream as the standard words it, with no thought of speed or reads."""
    events, data, name = [], [], ""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines[:-1]:  # what follows the last line end is no line yet
        if not line:
            if data:
                events.append(SSEEvent(name, b"\n".join(data)))
            data, name = [], ""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        if field == b"event":
            name = value.decode("utf-8", "replace")
    return events


PIECES = [b"data", b"event", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"x", b"\xef\xbb\xbf", b"\xef", b"data: y\n\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.data())
def test_the_decoder_agrees_with_the_standard_on_any_stream_and_any_cut(stream: bytes, data: st.DataObject):
    assert decode(data.draw(cut(stream))) == by_the_book(stream)


CARRIED = st.binary(max_size=60).map(lambda data: data.replace(b"\r", b""))
NAMES = st.text(max_size=10).map(lambda name: name.encode("utf-8", "replace").decode().translate({10: "", 13: ""}))


@given(st.lists(st.tuples(CARRIED, NAMES), max_size=8), st.data())
def test_decoding_what_was_encoded_gives_it_back(events: list[tuple[bytes, str]], data: st.DataObject):
    stream = b"".join(encode_event(body, name) for body, name in events)
    assert decode(data.draw(cut(stream))) == [SSEEvent(name, body) for body, name in events]


@pytest.mark.parametrize(("data", "name"), [(b"a\rb", ""), (b"a", "b\nc"), (b"a", "b\rdata: c")])
def test_what_the_format_cannot_carry_is_refused(data: bytes, name: str):
    with pytest.raises(ValueError, match="cannot carry"):
        encode_event(data, name)


@pytest.mark.parametrize("start", [b"data: ", b": ", b"unknown: ", b""])
def test_a_line_over_the_limit_ends_the_stream_with_or_without_its_line_end(start: bytes):
    line = start + b"x" * (21 - len(start))
    for stream in (line, line + b"\n\n", line + b"\r\n\r\n"):
        for reads in every_way(stream):
            with pytest.raises(StreamError) as caught:
                decode(reads, 20)
            assert caught.value.kind == "too_large"
            assert caught.value.permanent


def test_a_line_of_just_the_limit_passes():
    stream = b"data: " + b"x" * 14 + b"\n\n"
    for reads in every_way(stream):
        assert decode(reads, 20) == [SSEEvent("", b"x" * 14)]


def test_an_event_may_be_longer_than_its_longest_line():
    assert decode([b"data: xxxxxxxxxx\n" * 9 + b"\n"], 20) == [SSEEvent("", b"\n".join([b"x" * 10] * 9))]


def test_events_ahead_of_an_over_long_line_are_not_lost():
    stream = b"data: a\n\ndata: b\n\n" + b"x" * 30 + b"\n"
    for reads in every_way(stream):
        events = events_of(reads, 20)
        assert [next(events).data, next(events).data] == [b"a", b"b"], reads
        with pytest.raises(StreamError):
            next(events)


def test_comments_are_counted_and_nothing_else():
    decoder = SSEDecoder()
    assert list(decoder.feed(b": ping\n\n:\n:a: b\nfoo: bar\ndata: :no\n\n")) == [SSEEvent("", b":no")]
    assert decoder.comments == 3
