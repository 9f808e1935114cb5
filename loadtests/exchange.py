"""One user request while it is on its way, and how it becomes a record. The same for every wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from webapp.clock import now_ns
from webapp.core.deltas import Deltas
from webapp.core.errors import StreamError
from webapp.core.loadplan import Target
from webapp.core.loadrecord import Record
from webapp.core.mixes import Question
from webapp.core.openai import Usage
from webapp.core.spec import Limits
from webapp.core.timing import Marks, figures

LIMITS = Limits()
NS_PER_S = 1_000_000_000


class Closable(Protocol):
    def close(self) -> None: ...


class Unread(Closable, Protocol):
    """A connection whose reads are not measured as they come, but when it is told to `catch_up`."""

    def catch_up(self) -> None: ...


@dataclass(slots=True)
class Job:
    """What to ask, of whom, and when it was meant to leave (ns of the generator's clock)."""

    target: Target
    question: Question
    intended_ns: int
    number: int = 0
    user: int = 0
    turn: int = 0
    pair: int | None = None
    history: Sequence[dict[str, Any]] = ()
    previous: str = ""
    patience_ns: int | None = None

    @property
    def prompt(self) -> str:
        return self.question.after(self.previous)

    def messages(self) -> tuple[dict[str, Any], ...]:
        system = self.question.system
        head = ({"role": "system", "content": system},) if system else ()
        return (*head, *self.history, {"role": "user", "content": self.prompt})


@dataclass(slots=True, eq=False)
class Exchange:
    """A running request. `marks` and `deltas` belong to whoever reads the stream; the sweeper looks at them too.

    `inbox`, or `socket` while nothing is read, is closed from outside to end it early, with `verdict` saying why:
    "left" (the user's patience) or the kind of a timeout.
    """

    job: Job
    begun_ns: int = field(default_factory=now_ns)
    marks: Marks = field(default_factory=Marks)
    deltas: Deltas = field(default_factory=Deltas)
    usage: Usage | None = None
    socket: Closable | None = None
    inbox: Unread | None = None
    verdict: str = ""
    server_ms: dict[str, Any] | None = None
    status: int = 0
    received_bytes: int = 0
    chars: int | None = None
    # What has been looked at so far: inter-chunk gaps, and whether live statistics have its first token.
    gaps_ns: list[int] = field(default_factory=list)
    seen: int = 0
    counted_first: bool = False

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas if delta.kind == "content")

    def catch_up(self) -> None:
        """Measure what has arrived so far."""
        if self.inbox is not None:
            self.inbox.catch_up()

    def look(self) -> list[int]:
        """Return the gaps between chunks that have been measured since the last look."""
        times = self.deltas.times_ns
        new = times[max(0, self.seen - 1) :]
        self.seen = len(times)
        gaps = [b - a for a, b in pairwise(new)]
        self.gaps_ns += gaps
        return gaps

    def expired(self, at_ns: int) -> str:
        """Return what has run out by `at_ns`: "left", the kind of a timeout, or "" for nothing."""
        marks, job = self.marks, self.job
        if marks.first_token is None:
            patience_ns = job.patience_ns
            if patience_ns is not None and at_ns - self.begun_ns > patience_ns:
                return "left"
            return "first_byte_timeout" if at_ns - self.begun_ns > LIMITS.first_byte_s * NS_PER_S else ""
        if marks.last_token is not None and at_ns - marks.last_token > LIMITS.gap_s * NS_PER_S:
            return "gap_timeout"
        return "total_timeout" if at_ns - self.begun_ns > LIMITS.total_s * NS_PER_S else ""

    def cut(self, verdict: str) -> None:
        """End it from outside: the reader's next look at its socket fails, and the verdict explains it."""
        self.verdict = verdict
        connection = self.inbox or self.socket
        if connection is not None:
            connection.close()

    def record(self, t0_ns: int, outcome: str, error: StreamError | None = None, text: bool = False) -> Record:
        """Return what is kept of it, after a last `look`; times become ns after the run's start."""
        job, marks = self.job, self.marks
        found = figures(marks, self.deltas, self.usage, chars=self.chars, icl=False)
        after = marks.since(t0_ns)
        for name in ("intended", "sent"):
            after.pop(name)
        return Record(
            backend=job.target.slug,
            number=job.number,
            outcome=outcome,
            intended=job.intended_ns - t0_ns,
            sent=None if marks.sent is None else marks.sent - t0_ns,
            marks=after,
            gaps_ns=tuple(self.gaps_ns),
            output_tokens=found.output_tokens,
            input_tokens=found.prompt_tokens,
            tokens_source=found.tokens_source,
            tpot_ns=None if found.tpot_ms is None else round(found.tpot_ms * 1e6),
            late_ns=max(0, self.begun_ns - job.intended_ns),
            error_kind=error.kind if error else "",
            error=error.message if error else "",
            status=self.status,
            user=job.user,
            turn=job.turn,
            pair=job.pair,
            text=self.deltas.text if text else "",
            server_ms=self.server_ms,
        )
