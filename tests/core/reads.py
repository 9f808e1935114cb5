"""One byte stream, cut into reads in every way that matters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import strategies as st


def every_way(data: bytes) -> Iterator[list[bytes]]:
    """Yield `data` whole, byte by byte, with empty reads between, and in two parts at every offset."""
    yield [data]
    single = [data[place : place + 1] for place in range(len(data))]
    yield single
    yield [read for byte in single for read in (b"", byte)]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut `data` into reads at up to twenty places."""
    places = draw(st.lists(st.integers(0, len(data)), max_size=20))
    return [data[start:end] for start, end in pairwise([0, *sorted(places), len(data)])]
