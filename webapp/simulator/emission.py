"""Write one answer as its chunks fall due, or collect it. Knows neither HTTP nor the clock.

`fire` is what the pacer calls: everything due goes out in one write, and nothing else is remembered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from webapp.simulator.faults import Ending
from webapp.simulator.machine import Plan
from webapp.simulator.reply import Chunk, Reply
from webapp.simulator.request import ChatRequest
from webapp.simulator.wire import (
    DONE,
    GARBAGE,
    StreamEncoder,
    completion,
    error_event,
    time_info_of,
    usage_of,
)

BURST = 256  # chunks in one write: a stream that is far behind must not hold up the others
RETRY_NS = 5_000_000  # how soon a client that does not read is looked at again
PATIENCE_NS = 60_000_000_000  # how long it may read nothing before its connection is reset
SILENCE_NS = 600_000_000_000


@dataclass(slots=True)
class Answering:
    """Everything that belongs to one request being answered."""

    request: ChatRequest
    plan: Plan
    reply: Reply
    chunks: Iterator[Chunk]
    arrived_ns: int
    answer_id: str
    created: int


class Sink(Protocol):
    """Where the bytes of a stream go."""

    @property
    def full(self) -> bool:
        """True while the client has not read what it was sent."""

    def write(self, data: bytes) -> None:
        """Send now."""

    def reset(self) -> None:
        """Break the connection off."""


class Emission:
    """A stream on its way out."""

    def __init__(self, answering: Answering, sink: Sink) -> None:
        self._answering = answering
        self._sink = sink
        self._encoder = StreamEncoder(answering.request, answering.answer_id, answering.created)
        self._chunk = next(answering.chunks, None)
        self._last_due_ns = self._chunk.due_ns if self._chunk else answering.plan.first_ns
        self._opened = False
        self._ended = False
        self._full_since_ns: int | None = None
        self.first_ns = answering.arrived_ns + self._last_due_ns

    def fire(self, now_ns: int) -> int | None:
        """Write everything due at `now_ns`; return when to be called again, None after the end."""
        if self._sink.full:
            return self._wait(now_ns)
        self._full_since_ns = None
        if self._ended:  # a silence that is over
            return None
        events = self._due(now_ns)
        if self._chunk is None:
            events += self._tail()
        if events:
            self._sink.write(b"".join(events))
        if self._chunk is not None:
            return self._answering.arrived_ns + self._chunk.due_ns
        return self._end(now_ns)

    def _due(self, now_ns: int) -> list[bytes]:
        events: list[bytes] = []
        arrived_ns, chunk = self._answering.arrived_ns, self._chunk
        while chunk is not None and arrived_ns + chunk.due_ns <= now_ns and len(events) < BURST:
            if not self._opened:
                self._opened = True
                events.append(self._encoder.role(arrived_ns))
            events.append(self._encoder.chunk(chunk, now_ns))
            self._last_due_ns = chunk.due_ns
            chunk = next(self._answering.chunks, None)
        self._chunk = chunk
        return events

    def _wait(self, now_ns: int) -> int | None:
        if self._full_since_ns is None:
            self._full_since_ns = now_ns
        if now_ns - self._full_since_ns < PATIENCE_NS:
            return now_ns + RETRY_NS
        self._sink.reset()
        return None

    def _tail(self) -> list[bytes]:
        """Return the events after the last chunk."""
        request, encoder = self._answering.request, self._encoder
        match request.fault.ending:
            case Ending.SILENCE | Ending.RESET | Ending.EARLY:
                return []
            case Ending.ERROR:
                return [error_event("The engine died while it was answering."), DONE]
            case Ending.GARBAGE:
                return [GARBAGE, DONE]
        events = [] if self._opened else [encoder.role(self._answering.arrived_ns)]
        events.append(encoder.finish(self._answering.reply.finish_reason))
        if request.include_usage:
            usage = usage_of(request, self._answering.reply)
            events.append(encoder.usage(usage, time_info_of(self._answering.plan, self._last_due_ns)))
        return events if request.fault.ending == Ending.NO_DONE else [*events, DONE]

    def _end(self, now_ns: int) -> int | None:
        match self._answering.request.fault.ending:
            case Ending.SILENCE:
                self._ended = True
                return now_ns + SILENCE_NS
            case Ending.RESET:
                self._sink.reset()
        return None


class Collection:
    """An answer that is sent whole, once its last chunk is due."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._chunks: list[Chunk] = []
        self.first_ns = answering.arrived_ns

    def fire(self, now_ns: int) -> int | None:
        """Collect some chunks ahead of time; return None when the last one is due."""
        answering = self._answering
        for _ in range(BURST):
            chunk = next(answering.chunks, None)
            if chunk is None:
                last_ns = self._chunks[-1].due_ns if self._chunks else answering.plan.first_ns
                due_ns = answering.arrived_ns + last_ns
                return due_ns if due_ns > now_ns else None
            self._chunks.append(chunk)
        return now_ns

    def body(self) -> bytes:
        """Return the response's JSON."""
        at = self._answering
        return completion(at.request, at.answer_id, at.created, at.reply, self._chunks, at.plan)
