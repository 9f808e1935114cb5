"""Long reads are taken in parts, which changes nothing of what is measured."""

from __future__ import annotations

import pytest

from loadtests.http import EDGE_BYTES, LONG_BYTES, parts
from webapp.core.meter import StreamMeter

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":" word %d"}}]}\n\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ANSWER = ROLE + b"".join(TOKEN % n for n in range(2000)) + END


@pytest.mark.parametrize("size", [1, LONG_BYTES - 1, LONG_BYTES, 3 * LONG_BYTES + 17, len(ANSWER)])
def test_a_read_is_cut_where_events_end_and_nothing_is_lost(size: int) -> None:
    found = parts(ANSWER[:size])
    assert b"".join(found) == ANSWER[:size]
    assert all(part.endswith(b"\n\n") for part in found[:-1])
    assert all(len(part) < EDGE_BYTES + 200 for part in (found[0], found[-1])) or len(found) == 1
    assert len(found) == (3 if size >= LONG_BYTES else 1)


@pytest.mark.parametrize("data", [b"x" * 9000, b"data: 1\r\n\r\n" * 900, b"x" * 3000 + b"\n\n" + b"x" * 3000])
def test_what_cannot_be_cut_stays_whole(data: bytes) -> None:
    assert parts(data) == (data,)


@pytest.mark.parametrize("size", [97, 5000, len(ANSWER)])
def test_parts_are_measured_as_the_whole_is(size: int) -> None:
    whole, cut = StreamMeter(), StreamMeter()
    for start in range(0, len(ANSWER), size):
        read = ANSWER[start : start + size]
        whole.receive(read, start)
        for part in parts(read):
            cut.receive(part, start)
    assert list(cut.deltas) == list(whole.deltas)
    assert cut.marks == whole.marks
    assert (cut.finish_reason, cut.marker, cut.chars) == (whole.finish_reason, whole.marker, whole.chars)
