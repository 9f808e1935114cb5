"""The streamed pieces of one answer, kept in columns.

A sequence of `Delta` that only grows. As objects of their own 100,000 pieces would take 20 MB, and the garbage
collector would look at each of them again and again; in columns they take a fifth, and it sees five objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

KINDS = ("content", "reasoning", "tool")
_CODE_OF_KIND = {kind: code for code, kind in enumerate(KINDS)}
_UNKNOWN = -1
_MOST = (1 << 31) - 1  # a server may claim any number of tokens; the column holds 31 bits


class Delta(NamedTuple):
    """One streamed piece of text and its arrival.

    Not a token: it may hold several, or part of one. `kind` is "content", "reasoning" or "tool"; `tokens` the number
    the server says it holds, None where it does not say.
    """

    at_ns: int
    kind: str
    text: str
    tokens: int | None = None


class Deltas(Sequence[Delta]):
    """Append with `add`; everything else is what a list of `Delta` does. Slices are lists."""

    def __init__(self, deltas: Iterable[Delta] = ()) -> None:
        self._at_ns = array("q")
        self._kinds = bytearray()
        self._tokens = array("i")
        self._ends = array("I")  # where each piece ends in `_text`, which `Limits.body_bytes` keeps far below 4 GiB
        self._text = bytearray()
        for delta in deltas:
            self.add(*delta)

    def add(self, at_ns: int, kind: str, text: str, tokens: int | None = None) -> None:
        self._text += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._text))
        self._kinds.append(_CODE_OF_KIND[kind])
        self._tokens.append(_UNKNOWN if tokens is None else min(tokens, _MOST))
        self._at_ns.append(at_ns)  # last: its length is ours, and another thread may be looking

    def add_pieces(self, at_ns: int, kind: str, pieces: Sequence[bytes]) -> str:
        """Add the text of successive events that arrived together, as UTF-8, and return it all; empty pieces are none.

        As with `add` where the server does not say how many tokens it sent.
        """
        before, count = len(self._text), 0
        for piece in pieces:
            if piece:
                self._text += piece
                self._ends.append(len(self._text))
                count += 1
        if count == 1:
            self._kinds.append(_CODE_OF_KIND[kind])
            self._tokens.append(_UNKNOWN)
            self._at_ns.append(at_ns)
        else:
            self._kinds += bytes((_CODE_OF_KIND[kind],)) * count
            self._tokens.extend([_UNKNOWN] * count)
            self._at_ns.extend([at_ns] * count)
        return self._text[before:].decode()

    @property
    def text(self) -> str:
        """The text of all pieces, of whatever kind, in the order of their arrival."""
        return self._text.decode("utf-8", "surrogatepass")

    @property
    def times_ns(self) -> Sequence[int]:
        """When each piece arrived: the column itself, which costs nothing to look at."""
        return self._at_ns

    def __len__(self) -> int:
        return len(self._at_ns)

    @overload
    def __getitem__(self, place: int) -> Delta: ...

    @overload
    def __getitem__(self, place: slice) -> list[Delta]: ...

    def __getitem__(self, place: int | slice) -> Delta | list[Delta]:
        if isinstance(place, slice):
            return [self._at(index) for index in range(*place.indices(len(self)))]
        index = place + len(self) if place < 0 else place
        if not 0 <= index < len(self):
            raise IndexError("there is no such delta")
        return self._at(index)

    def __iter__(self) -> Iterator[Delta]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Deltas({list(self)!r})"

    def _at(self, index: int) -> Delta:
        start = self._ends[index - 1] if index else 0
        text = self._text[start : self._ends[index]].decode("utf-8", "surrogatepass")
        tokens = self._tokens[index]
        return Delta(self._at_ns[index], KINDS[self._kinds[index]], text, None if tokens == _UNKNOWN else tokens)
