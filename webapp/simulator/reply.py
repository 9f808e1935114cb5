"""The words of one answer under the limits of its request, then the chunks that they are sent in. Pure and lazy.

Whatever is taken from a Reply has been counted, so that usage always equals what was sent.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, islice
from typing import Literal, NamedTuple

from webapp.simulator.answers import AnswerBook
from webapp.simulator.request import Asked
from webapp.simulator.request_fields import CHAT
from webapp.simulator.text import split_tokens

Kind = Literal["reasoning", "content"]


class Chunk(NamedTuple):
    """One streamed piece; `due_ns` counts from the request's arrival."""

    due_ns: int
    kind: Kind
    text: str
    tokens: int


class Reply:
    """The tokens of one answer. Iterate once; the counts and the finish reason follow along."""

    def __init__(self, asked: Asked, book: AnswerBook) -> None:
        self.reasoning_tokens = 0
        self.content_tokens = 0
        self.finish_reason: Literal["stop", "length"] = "stop"
        self._answer = book.find(asked.question)
        self._continuations = book.continuations if asked.ignore_eos else ()
        self._thoughts = asked.profile.reasoning_tokens if asked.shape == CHAT else 0
        self._stop = asked.stop
        self._max_tokens = asked.max_tokens

    @property
    def tokens(self) -> int:
        return self.reasoning_tokens + self.content_tokens

    def most_tokens(self) -> int:
        """Return how many tokens there will be unless a stop text comes first."""
        if self._continuations:
            return self._max_tokens
        words = sum(1 for _ in thoughts(self._answer.thoughts, self._thoughts)) + len(split_tokens(self._answer.text))
        return min(self._max_tokens, words)

    def __iter__(self) -> Iterator[tuple[Kind, str]]:
        for token in thoughts(self._answer.thoughts, self._thoughts):
            self.reasoning_tokens += 1
            yield "reasoning", token
            if self._full():
                return
        for token in until_stop(self._content(), self._stop):
            self.content_tokens += 1
            yield "content", token
            if self._full():
                return

    def _content(self) -> Iterable[str]:
        tokens = split_tokens(self._answer.text)
        if not self._continuations:
            return tokens
        return chain(tokens, chain.from_iterable(map(split_tokens, cycle(self._continuations))))

    def _full(self) -> bool:
        if self.tokens < self._max_tokens:
            return False
        self.finish_reason = "length"
        return True


class Gatherer:
    """Hands out a reply as the machine produces it: a step's tokens as one chunk, or `chunk_tokens` together.

    It looks one token ahead, so that the end is known with the last token. Nothing is begun before it is needed:
    who waits in a queue holds no words.
    """

    def __init__(self, reply: Reply, chunk_tokens: int, limit: int | None) -> None:
        self.over = False
        self._reply = reply
        self._limit = limit
        self._least = chunk_tokens
        self._pieces: Iterator[tuple[Kind, str]] | None = None
        self._ahead: tuple[Kind, str] | None = None
        self._kind: Kind = "content"
        self._texts: list[str] = []

    def take(self, count: int, due_ns: int) -> list[Chunk]:
        """Take `count` tokens that are due at `due_ns`; return the chunks that are complete."""
        pieces = self._pieces
        if pieces is None:
            pieces = self._pieces = islice(self._reply, self._limit)
            self._ahead = next(pieces, None)
        piece, texts = self._ahead, self._texts
        if piece is not None and count == self._least == 1:  # what nearly always happens
            self._ahead = ahead = next(pieces, None)
            self.over = ahead is None
            return [Chunk(due_ns, piece[0], piece[1], 1)]
        chunks: list[Chunk] = []
        for _ in range(count):
            if piece is None:
                break
            if texts and piece[0] != self._kind:
                chunks.append(self._chunk(due_ns))
            self._kind = piece[0]
            texts.append(piece[1])
            piece = next(pieces, None)
        self._ahead = piece
        self.over = piece is None
        if texts and (self.over or len(texts) >= self._least):
            chunks.append(self._chunk(due_ns))
        return chunks

    def _chunk(self, due_ns: int) -> Chunk:
        texts = self._texts
        chunk = Chunk(due_ns, self._kind, texts[0] if len(texts) == 1 else "".join(texts), len(texts))
        texts.clear()
        return chunk


def thoughts(sentences: Iterable[str], about_tokens: int) -> Iterator[str]:
    """Yield reasoning up to `about_tokens`, in whole sentences; at least one if any is wanted."""
    used = 0
    for sentence in sentences if about_tokens else ():
        tokens = split_tokens(sentence)
        used += len(tokens)
        if used > about_tokens and used > len(tokens):
            return
        yield from tokens


def until_stop(tokens: Iterable[str], stops: tuple[str, ...]) -> Iterator[str]:
    """Yield tokens up to, and without, the stop text that is complete first, even one across tokens."""
    if not stops:
        yield from tokens
        return
    hold = max(map(len, stops)) - 1
    waiting: deque[str] = deque()
    held = ""
    for token in tokens:
        waiting.append(token)
        held += token
        ends = [(at + len(stop), at) for stop in stops if (at := held.find(stop)) >= 0]
        if ends:
            yield from _cut(waiting, min(ends)[1])
            return
        while waiting and len(held) - len(waiting[0]) >= hold:
            first = waiting.popleft()
            held = held[len(first) :]
            yield first
    yield from waiting


def _cut(tokens: Iterable[str], chars: int) -> Iterator[str]:
    for token in tokens:
        if chars <= 0:
            return
        yield token[:chars]
        chars -= len(token)
