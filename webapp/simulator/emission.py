"""Write one answer as the engine produces it, or collect it. Knows neither HTTP nor the clock.

The driver feeds tokens and then flushes: everything that fell due meanwhile goes out in one write. A client that
does not read is owed its tokens, a few bytes each; the words are made when it reads again.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from webapp.core.truth import Emitted
from webapp.simulator import faults_events as odd
from webapp.simulator.faults import Ending, Framing
from webapp.simulator.reply import Chunk, Gatherer, Reply
from webapp.simulator.request import Asked, BadRequest
from webapp.simulator.sequence import RequestTimes, Timing
from webapp.simulator.wire import (
    DONE,
    StreamEncoder,
    completion,
    error_event,
    time_info_of,
    usage_of,
)
from webapp.simulator.wire_framing import framing_of, plain

BURST = 256  # steps paid back in one go: a stream that is far behind must not hold up the others
RETRY_NS = 5_000_000  # how soon a client that does not read is looked at again
PATIENCE_NS = 60_000_000_000  # how long it may read nothing before its connection is reset
INSERT_AFTER = 3  # chunks
DIED = "The engine died while it was answering."

Fire = Callable[[int], int | None]


@dataclass(slots=True)
class Answering:
    """Everything that belongs to one request being answered."""

    asked: Asked
    reply: Reply
    arrived_ns: int
    api_ns: int
    identity: str
    created: int

    @property
    def tokens(self) -> int:
        """How many tokens the engine is asked for: at least one, as engines go."""
        most, cut = self.reply.most_tokens(), self.asked.fault.after_tokens
        return max(1, most if cut is None else min(most, cut))

    def gatherer(self) -> Gatherer:
        return Gatherer(self.reply, self.asked.profile.chunk_tokens, self.asked.fault.after_tokens)

    def timing(self, first_ns: int, last_ns: int, times: RequestTimes) -> Timing:
        return Timing(self.arrived_ns, first_ns, last_ns, times)


class Sink(Protocol):
    """Where the bytes of a stream go."""

    @property
    def full(self) -> bool:
        """True while the client has not read what it was sent."""

    def write(self, data: bytes) -> None:
        """Send now."""

    def reset(self) -> None:
        """Break the connection off."""


class Stream:
    """A stream on its way out. `later` makes an appointment, `done` is called once, after the last write."""

    __slots__ = (
        "_answering", "_chunks", "_done", "_emitted", "_encoder", "_first_ns", "_frame", "_full_since_ns", "_gatherer",
        "_last_ns", "_last_sent_ns", "_late_ns", "_later", "_open", "_owed", "_sent", "_sink", "times",
    )  # fmt: skip

    def __init__(
        self, answering: Answering, sink: Sink, later: Callable[[int, Fire], object], done: Callable[[], None]
    ) -> None:
        self._answering = answering
        self._sink = sink
        self._later = later
        self._done = done
        self._gatherer = answering.gatherer()
        self._encoder: StreamEncoder | None = None  # made with the first token: who waits should be small
        framing = answering.asked.fault.framing
        self._frame = plain if framing == Framing.PLAIN else framing_of(framing)
        self._chunks: list[Chunk] = []
        self._first_ns = self._last_ns = 0
        self._emitted: tuple[int, int] | None = None  # when the first chunk was written, and its tokens
        self._last_sent_ns = 0
        self._late_ns = 0  # at most, and of this host: what a client has not read is late through no fault of it
        self._sent = 0
        self.times: RequestTimes | None = None
        self._full_since_ns: int | None = None
        self._owed = array("q")  # due time and tokens of each step since the client stopped reading
        self._open = True

    def feed(self, count: int, due_ns: int) -> bool:
        """Take the tokens of a step, due at `due_ns` or still in the front end until then; return whether the text is
        over.
        """
        if self._full_since_ns is not None:
            self._owed.extend((due_ns, count))
            return False
        return self._take(count, due_ns)

    def finish(self, times: RequestTimes) -> None:
        """Say that no more tokens will come."""
        self.times = times

    def flush(self, now_ns: int) -> None:
        """Write what has been fed and is due; after `finish`, the end as well."""
        if self._full_since_ns is not None or not self._open:
            return
        if self._sink.full:
            self._full_since_ns = now_ns
            self._later(now_ns + RETRY_NS, self._retry)
            return
        if chunks := self._due(now_ns):
            self._late_ns = max(self._late_ns, now_ns - self._answering.arrived_ns - chunks[0].due_ns)
        self._write(chunks, now_ns)

    def timing(self) -> Timing:
        """Return when the answer was due, once it is finished."""
        assert self.times is not None
        return self._answering.timing(self._first_ns, self._last_ns, self.times)

    def fail(self, message: str) -> None:
        """Say that the engine will not answer."""
        self._sink.write(error_event(message) + DONE)
        self._end()

    def close(self) -> None:
        """Forget the client: it has left."""
        self._open = False

    def _end(self) -> None:
        self._open = False
        self._done()

    def _take(self, count: int, due_ns: int) -> bool:
        self._last_ns = relative_ns = due_ns - self._answering.arrived_ns
        if not self._first_ns:
            self._first_ns = relative_ns
        gatherer = self._gatherer
        self._chunks += gatherer.take(count, relative_ns)
        return gatherer.over

    def _due(self, now_ns: int) -> list[Chunk]:
        """Take out the chunks that are due: all, unless some are in the front end still."""
        chunks, passed_ns = self._chunks, now_ns - self._answering.arrived_ns
        if not chunks or chunks[-1].due_ns <= passed_ns:
            self._chunks = []
            return chunks
        due = bisect_right(chunks, passed_ns, key=lambda chunk: chunk.due_ns)
        self._chunks = chunks[due:]
        return chunks[:due]

    def _write(self, chunks: Sequence[Chunk], now_ns: int) -> None:
        events = self._text(chunks, now_ns) if chunks else []
        over = self.times is not None and not self._owed and not self._chunks
        if over:
            events += self._tail()
        if events:
            for segment in self._frame(events):
                self._sink.write(segment)
        if over:
            self._end()

    def _text(self, chunks: Sequence[Chunk], now_ns: int) -> list[bytes]:
        encoder, events = self._encoder, []
        if encoder is None:
            encoder = self._begin()
            events.append(encoder.role(self._answering.arrived_ns))
            self._emitted = now_ns, chunks[0].tokens
        self._last_sent_ns = now_ns
        inserted = self._answering.asked.fault.inserted
        for chunk in chunks:
            events.append(encoder.chunk(chunk, now_ns))
            if inserted:
                self._sent += 1
                if self._sent == INSERT_AFTER:
                    events.append(inserted)
        return events

    def _begin(self) -> StreamEncoder:
        answering = self._answering
        self._encoder = StreamEncoder(answering.asked, answering.identity, answering.created)
        return self._encoder

    def _retry(self, now_ns: int) -> int | None:
        """Look at a client that did not read; pay what it is owed, a slice at a time."""
        if not self._open or self._full_since_ns is None:
            return None
        if self._sink.full:
            if now_ns - self._full_since_ns < PATIENCE_NS:
                return now_ns + RETRY_NS
            self._sink.reset()
            self._end()
            return None
        self._full_since_ns = now_ns
        owed = self._owed
        for at in range(0, min(len(owed), 2 * BURST), 2):
            self._take(owed[at + 1], owed[at])
        del owed[: 2 * BURST]
        self._write(self._due(now_ns), now_ns)
        if owed:
            return now_ns
        self._full_since_ns = None
        return None

    def _tail(self) -> list[bytes]:
        """Return the events after the last chunk."""
        ending = self._answering.asked.fault.ending
        match ending:
            case Ending.SILENCE | Ending.HEARTBEAT | Ending.FLOOD | Ending.RESET | Ending.EARLY | Ending.CUT:
                return []
            case Ending.ERROR:
                return [error_event(DIED), DONE]
            case Ending.ERROR_EVENT:
                return [error_event(DIED, "error"), DONE]
            case Ending.GARBAGE:
                return [odd.GARBAGE, DONE]
        events = self._proper_end()
        if ending != Ending.NO_DONE:
            events.append(DONE)
        if ending in (Ending.LINGER, Ending.DEAF):
            events.append(odd.AFTER_DONE)
        return events

    def _proper_end(self) -> list[bytes]:
        answering, encoder = self._answering, self._encoder
        events = []
        if encoder is None:
            encoder = self._begin()
            events.append(encoder.role(answering.arrived_ns))
        assert self.times is not None
        emitted = None
        if self._emitted is not None:
            first_sent_ns, first_tokens = self._emitted
            emitted = Emitted(answering.arrived_ns, first_sent_ns, self._last_sent_ns, first_tokens, self._late_ns)
        time_info = time_info_of(self.timing(), emitted)
        counts = answering.asked.include_usage
        events.append(encoder.finish(answering.reply.finish_reason, {} if counts else {"time_info": time_info}))
        if counts:
            events.append(encoder.usage(usage_of(answering.asked, answering.reply), time_info))
        return events


class Collection:
    """An answer that is sent whole. `done` is called once, when its last token is due."""

    def __init__(self, answering: Answering, done: Callable[[], None]) -> None:
        self._answering = answering
        self._done = done
        self._gatherer = answering.gatherer()
        self._chunks: list[Chunk] = []
        self._first_ns = self._last_ns = 0
        self._message = DIED
        self.times: RequestTimes | None = None

    def feed(self, count: int, due_ns: int) -> bool:
        self._last_ns = due_ns - self._answering.arrived_ns
        self._first_ns = self._first_ns or self._last_ns
        self._chunks += self._gatherer.take(count, self._last_ns)
        return self._gatherer.over

    def finish(self, times: RequestTimes) -> None:
        self.times = times

    def flush(self, now_ns: int) -> None:
        if self.times is not None and now_ns - self._answering.arrived_ns >= self._last_ns:
            self._done()

    def timing(self) -> Timing:
        """Return when the answer was due, once it is finished."""
        assert self.times is not None
        return self._answering.timing(self._first_ns, self._last_ns, self.times)

    def fail(self, message: str) -> None:
        self._message = message
        self._done()

    def close(self) -> None:
        """Nothing to forget: what was collected goes with the collection."""

    def body(self) -> bytes:
        """Return the response's JSON, once `done` was called. Raises BadRequest where the engine failed."""
        at = self._answering
        if self.times is None:
            raise BadRequest(self._message, status=500)
        return completion(at.asked, at.identity, at.created, at.reply, self._chunks, self.timing())
