"""One stream's measurement: raw bytes and their arrival times in, chunks, deltas and marks out.

The only mutable object of the package. It is told the time; it never asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from webapp.core import openai
from webapp.core.deltas import Deltas
from webapp.core.errors import StreamError
from webapp.core.openai import Chunk, Usage, plain_chunk
from webapp.core.spec import Limits
from webapp.core.sse import SSEDecoder, SSEEvent
from webapp.core.stencil import Stencil
from webapp.core.timing import Marks, counted, estimate_tokens

FORGIVEN_EVENTS = 5  # malformed events that a stream survives; more is a server that speaks something else


@dataclass
class StreamMeter:
    """Collects one answer.

    Feed it with `receive(data, at_ns)` for each read until `ended`, then call `finish(at_ns)` once. `deltas` only ever
    grows, so that a display can follow it with an index of its own and never delays the reader. `marks` may be shared
    with the connection, which knows when the request was sent. `marker` is True once [DONE] has been seen; `error` is
    what broke the stream off. Whoever passes the answer on gives a list as `chunks`, to which what arrived is appended.
    """

    marks: Marks = field(default_factory=Marks)
    limits: Limits = field(default_factory=Limits)
    deltas: Deltas = field(default_factory=Deltas)
    chunks: list[Chunk] | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    server_times: dict[str, dict[str, Any]] = field(default_factory=dict)
    marker: bool = False
    error: StreamError | None = None
    malformed: int = 0
    chars: int = 0
    received_bytes: int = 0
    _events: int = 0

    def __post_init__(self) -> None:
        self._decoder = SSEDecoder(self.limits.line_bytes)
        self._stencil = Stencil()

    @property
    def tokens(self) -> tuple[int, bool]:
        """The output tokens so far, and whether the server itself has counted them."""
        if (count := counted(self.usage, len(self.deltas))) is not None:
            return count, True
        return estimate_tokens(len(self.deltas), self.chars), False

    @property
    def ended(self) -> bool:
        """True where no further read can change the answer: after the end marker, or after an error."""
        return self.marker or self.error is not None

    @property
    def comments(self) -> int:
        return self._decoder.comments

    def receive(self, data: bytes, at_ns: int) -> bool:
        """Take one read that arrived at `at_ns` (monotonic ns); return whether it completed an event.

        Events of one read share its time: that is the truth there is. Where the stream breaks the protocol or a limit,
        `error` is set; what came ahead of the fault is taken, so that nothing that arrived is lost.
        """
        if self.marker or self.error is not None:
            return False
        if self._receive_plain(data, at_ns):
            return True
        events = self._events
        room_bytes = self.limits.body_bytes - self.received_bytes
        self.received_bytes += len(data)
        try:
            for event in self._decoder.feed(data[:room_bytes]):
                self._take(event, at_ns)
                if self.marker:
                    return True
            if len(data) > room_bytes:
                raise self._too_much(f"over {self.limits.body_bytes >> 20} MiB")
        except StreamError as error:
            self.error = error
        return self._events > events

    def finish(self, at_ns: int) -> list[str]:
        """End the measurement at `at_ns` and return notes on the ending, mostly none.

        Raises `error` where the stream was broken off, and StreamError("truncated") where it had neither a finish
        reason nor an end marker: the connection closed in the middle of an answer, and however clean the close, that
        is not a success.
        """
        self.marks.end = at_ns
        if self.error is not None:
            raise self.error
        if self.finish_reason is None and not self.marker:
            raise StreamError(
                "truncated",
                "The backend closed the stream before its answer was complete; what had arrived is kept.",
            )
        notes = []
        if not self.marker:
            notes.append("no end marker ([DONE])")
        if self.malformed:
            notes.append(f"{self.malformed} malformed event(s) skipped")
        if not self.deltas:
            notes.append("empty answer")
        return notes

    def _receive_plain(self, data: bytes, at_ns: int) -> bool:
        """Take a read of nothing but text, as most are, without parsing it. False, and nothing taken, for any other."""
        limits, events = self.limits, self._decoder.whole_events(data)
        if not events or (pieces := self._stencil.pieces(events)) is None:
            return False
        if (
            self._events + len(pieces) > limits.events
            or self.received_bytes + len(data) > limits.body_bytes
            or len(events) > limits.line_bytes
        ):
            return False
        self._decoder.skip(data)
        self._events += len(pieces)
        self.received_bytes += len(data)
        kind = self._stencil.kind
        text = self.deltas.add_pieces(at_ns, kind, pieces)
        if text:  # not the first: that taught the stencil
            self.marks.last_token = at_ns
            self.chars += len(text)
        if self.chunks is not None:
            self.chunks.append(plain_chunk(kind, text, events))
        return True

    def _take(self, event: SSEEvent, at_ns: int) -> None:
        self._events += 1
        if self._events > self.limits.events:
            raise self._too_much(f"over {self.limits.events:,} events")
        if self.marks.first_event is None:
            self.marks.first_event = at_ns
        try:
            chunk = openai.parse(event)
        except ValueError as error:
            self._forgive(error)
            return
        if self.chunks is not None:
            self.chunks.append(chunk)
        if chunk.done:
            self.marker = True
            return
        if chunk.finish_reason:
            self.finish_reason = chunk.finish_reason
        self._add_text(chunk, at_ns)
        if chunk.usage is not None:
            self.usage = chunk.usage
            self.marks.usage = at_ns
        if chunk.server_times:
            self.server_times.update(chunk.server_times)
        self._stencil.learn(chunk)

    def _add_text(self, chunk: Chunk, at_ns: int) -> None:
        if not (chunk.content or chunk.reasoning or chunk.tool):
            return
        marks = self.marks
        tokens = self._new_tokens(chunk)
        if marks.first_token is None:
            marks.first_token = at_ns
        marks.last_token = at_ns
        if chunk.reasoning:
            self._add(at_ns, "reasoning", chunk.reasoning, tokens)
            tokens = None if tokens is None else 0
        if chunk.content or chunk.tool:
            if marks.first_output is None:
                marks.first_output = at_ns
            kind = "content" if chunk.content else "tool"
            self._add(at_ns, kind, chunk.content or chunk.tool, tokens)

    def _add(self, at_ns: int, kind: str, text: str, tokens: int | None) -> None:
        self.deltas.add(at_ns, kind, text, tokens)
        self.chars += len(text)

    def _new_tokens(self, chunk: Chunk) -> int | None:
        """Return the tokens of this chunk where the server counts along (usage in every chunk), else None.

        A usage block on the last text chunk of a stream that has not counted so far is a total, not this chunk's own.
        """
        if chunk.usage is None or chunk.usage.completion_tokens is None:
            return None
        before = self.usage.completion_tokens if self.usage else None
        if before is None:
            return None if self.deltas else chunk.usage.completion_tokens
        return max(0, chunk.usage.completion_tokens - before)

    def _forgive(self, error: ValueError) -> None:
        self.malformed += 1
        if self.malformed > FORGIVEN_EVENTS:
            raise StreamError(
                "protocol",
                f"The backend sent more than {FORGIVEN_EVENTS} events that are not valid JSON; "
                "check that it is an OpenAI-compatible chat endpoint.",
                permanent=True,
            ) from error

    def _too_much(self, what: str) -> StreamError:
        return StreamError("too_large", f"The backend sent {what}; the answer was stopped there.", permanent=True)
