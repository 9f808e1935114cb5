"""The words of one answer under the limits of its request, then their due times. Pure and lazy.

Whatever is taken from a Reply has been counted, so that usage always equals what was sent.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, cycle
from typing import Literal, NamedTuple

from webapp.simulator.answers import Answer, AnswerBook
from webapp.simulator.machine import Plan
from webapp.simulator.request import ChatRequest
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

    def __init__(self, request: ChatRequest, book: AnswerBook) -> None:
        self.reasoning_tokens = 0
        self.content_tokens = 0
        self.finish_reason: Literal["stop", "length"] = "stop"
        self._request = request
        self._book = book

    @property
    def tokens(self) -> int:
        return self.reasoning_tokens + self.content_tokens

    def __iter__(self) -> Iterator[tuple[Kind, str]]:
        request = self._request
        answer = self._book.find(request.question)
        for token in thoughts(answer, request.profile.reasoning_tokens):
            self.reasoning_tokens += 1
            yield "reasoning", token
            if self._full():
                return
        for token in until_stop(self._content(answer), request.stop):
            self.content_tokens += 1
            yield "content", token
            if self._full():
                return

    def _content(self, answer: Answer) -> Iterable[str]:
        tokens = split_tokens(answer.text)
        if not self._request.ignore_eos:
            return tokens
        return chain(tokens, chain.from_iterable(map(split_tokens, cycle(self._book.continuations))))

    def _full(self) -> bool:
        if self.tokens < self._request.max_tokens:
            return False
        self.finish_reason = "length"
        return True


def thoughts(answer: Answer, about_tokens: int) -> Iterator[str]:
    """Yield reasoning up to `about_tokens`, in whole sentences; at least one if any is wanted."""
    used = 0
    for sentence in answer.thoughts if about_tokens else ():
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


def chunks(reply: Iterable[tuple[Kind, str]], plan: Plan, chunk_tokens: int) -> Iterator[Chunk]:
    """Give each step of the machine its tokens: up to `chunk_tokens` of one kind."""
    steps = plan.steps()
    texts: list[str] = []
    kind: Kind = "content"
    for next_kind, token in reply:
        if texts and (next_kind != kind or len(texts) == chunk_tokens):
            yield Chunk(next(steps), kind, "".join(texts), len(texts))
            texts = []
        kind = next_kind
        texts.append(token)
    if texts:
        yield Chunk(next(steps), kind, "".join(texts), len(texts))
