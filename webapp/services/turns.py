"""One turn: a prompt to one backend, its bytes stamped as they arrive, and exactly one ending.

This is the measuring path. Between the first and the last byte there is no database, no template, no log, no channel
layer and no bounded queue here; the reader never waits for anybody who watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from webapp.backends import Backend, keys
from webapp.clock import now_ns
from webapp.core.errors import Outcome, StreamError
from webapp.core.meter import StreamMeter
from webapp.core.spec import BackendSpec, Limits, PromptSpec
from webapp.core.timing import Figures, Marks, figures
from webapp.models import new_id
from webapp.services.looplag import LoopLag

NS_PER_S = 1_000_000_000
# What is handled before others get their turn of the loop: about 20 events, a tenth of a millisecond. A stream that is
# ready whenever it is looked at would otherwise keep every other one waiting.
PART_BYTES = 4 * 1024
SECOND_LOOK_S = 0.01  # some turns of the loop: enough to read what has arrived

# Called when the backend has accepted the request, and after each read that completed an event. It may return something
# to await where no more can be taken for now.
Listener = Callable[[], Awaitable[object] | None]


def no_listener() -> None:
    """For turns that nobody follows."""


@dataclass
class LiveTurn:
    """A turn while it runs and after. `meter` holds what arrived; `outcome` leaves RUNNING exactly once."""

    spec: BackendSpec
    prompt: PromptSpec
    step: int = 0
    id: str = field(default_factory=new_id)
    meter: StreamMeter = field(init=False)
    outcome: Outcome = Outcome.RUNNING
    error: StreamError | None = None
    notes: list[str] = field(default_factory=list)
    reused: bool | None = None
    simulated: bool = False
    loop_lag_ns: int | None = None
    # What a cancelled turn ends as: stopped by a person unless somebody says otherwise before cancelling.
    if_cancelled: Outcome = Outcome.STOPPED
    _figures: Figures | None = None

    def __post_init__(self) -> None:
        self.meter = StreamMeter(limits=self.spec.limits)

    @property
    def marks(self) -> Marks:
        return self.meter.marks

    @property
    def text(self) -> str:
        """The answer proper, without reasoning."""
        return "".join(delta.text for delta in self.meter.deltas if delta.kind == "content")

    @property
    def badge(self) -> str:
        """The backend's badge, but SIMULATED wherever the server itself says that it only plays a model."""
        return "SIMULATED" if self.simulated and self.spec.badge == "LIVE" else self.spec.badge

    def figures(self) -> Figures:
        """Return the figures so far; those that need the whole answer are None while it runs."""
        if self._figures is not None:
            return self._figures
        live = self.outcome is Outcome.RUNNING
        prices = (self.spec.price_in_usd_per_mtok, self.spec.price_out_usd_per_mtok)
        found = figures(
            self.marks,
            self.meter.deltas,
            self.meter.usage,
            prices,
            chars=self.meter.chars,
            live=live,
        )
        if not live and self.marks.end is not None:
            self._figures = found  # asked for by everybody who shows the answer, while other lanes may still stream
        return found

    def note_lag(self, lag: LoopLag) -> None:
        """Keep how late the loop ran (p99) from the turn's due time to its end."""
        self.loop_lag_ns = lag.p99_ns(self.marks.intended or 0, self.marks.end or now_ns())


async def run_turn(turn: LiveTurn, backend: Backend, listener: Listener = no_listener) -> None:
    """Send the turn's prompt and read its answer to the end, whatever the end is.

    Returns with `turn.outcome` set; no StreamError leaves. Cancelling is the way to stop it: the upstream connection
    is closed at once, the outcome becomes `turn.if_cancelled`, and the cancellation goes on to the caller.
    """
    marks = turn.marks
    if marks.intended is None:
        marks.intended = now_ns()
    try:
        async with asyncio.timeout(None) as timeout:
            watchdog = Watchdog(turn.meter, timeout)
            try:
                await _read(turn, backend, listener, watchdog)
            finally:
                watchdog.stop()
    except TimeoutError:
        turn.error = watchdog.error()
    except StreamError as error:
        turn.error = error  # its text may quote the server, which may quote our key
        turn.error.message = keys.redact(error.message, turn.spec.key_ref)
    except asyncio.CancelledError:
        if turn.outcome is Outcome.RUNNING:  # else the answer was whole, and only its connection was waited for
            turn.outcome = turn.if_cancelled
        raise
    except Exception as error:  # a defect of ours ends this lane and no other
        turn.error = StreamError("internal", f"Splitsecond failed here ({type(error).__name__}); please report it.")
        raise
    finally:
        if turn.error is not None:
            turn.outcome = turn.error.outcome
        if marks.end is None:
            marks.end = now_ns()


async def _read(turn: LiveTurn, backend: Backend, listener: Listener, watchdog: Watchdog) -> None:
    meter = turn.meter
    async with backend.open(turn.spec, turn.prompt, meter.marks) as answer:
        turn.reused, turn.simulated = answer.reused, answer.simulated
        listener()
        async for data in answer.reads:
            at_ns = now_ns()
            if len(data) > PART_BYTES:
                await _receive_parts(turn, data, at_ns, listener, watchdog)
            elif meter.receive(data, at_ns) and (room := listener()) is not None:
                await watchdog.hold(room)
            if meter.ended:
                break
        turn.notes += meter.finish(now_ns())
        turn.outcome = Outcome.DONE
        watchdog.stop()  # closing the connection in good order is no part of the answer


async def _receive_parts(turn: LiveTurn, data: bytes, at_ns: int, listener: Listener, watchdog: Watchdog) -> None:
    """Take a long read part by part, all of it with the time at which it came, and let others run in between."""
    for start in range(0, len(data), PART_BYTES):
        part = data[start : start + PART_BYTES]
        if turn.meter.receive(part, at_ns) and (room := listener()) is not None:
            await watchdog.hold(room)
        if turn.meter.ended:
            return
        await asyncio.sleep(0)


class Watchdog:
    """Ends a turn that exceeds one of its limits.

    It wakes when a limit could expire and looks at the marks: a token costs it nothing. The next phase may have a
    shorter limit than the present one, so it never sleeps longer than the shortest. The gap limit counts from text to
    text, so a server that only sends keep-alive comments is found out. What has expired is looked at twice: where this
    process itself was held up, what the backend sent meanwhile is there and is read first.
    """

    def __init__(self, meter: StreamMeter, timeout: asyncio.Timeout) -> None:
        self._meter = meter
        self._timeout = timeout
        self._started_ns = now_ns()
        self._kind = ""
        self._held = False
        self._resumed_ns = 0
        self._doubted_ns = 0
        limits = meter.limits
        self._longest_sleep_s = min(limits.connect_s + limits.write_s, limits.first_byte_s, limits.gap_s)
        self._loop = asyncio.get_running_loop()
        self._look()

    def stop(self) -> None:
        self._handle.cancel()

    async def hold(self, room: Awaitable[object]) -> None:
        """Wait for `room`. Silence meanwhile is not the backend's, so its gap limit starts again afterwards."""
        self._held = True
        try:
            await room
        finally:
            self._held = False
            self._resumed_ns = now_ns()

    def error(self) -> StreamError:
        """Return what expired, in words."""
        limits = self._meter.limits
        open_s = limits.connect_s + limits.write_s
        sentences = {
            "connect_timeout": f"No connection took the request within {open_s:g} s; is the backend up and reachable?",
            "first_byte_timeout": f"The backend took the request and said nothing for {limits.first_byte_s:g} s.",
            "first_event_timeout": f"The backend began an answer but sent no text for {limits.first_byte_s:g} s.",
            "gap_timeout": f"The backend fell silent for {limits.gap_s:g} s in the middle of its answer.",
            "total_timeout": f"The answer took longer than the limit of {limits.total_s:g} s and was stopped.",
        }
        return StreamError(self._kind, sentences[self._kind])

    def _look(self) -> None:
        kind, due_ns = self._nearest()
        left_ns = due_ns - now_ns()
        if left_ns > 0:
            self._handle = self._loop.call_later(min(left_ns / NS_PER_S, self._longest_sleep_s), self._look)
        elif due_ns != self._doubted_ns:
            self._doubted_ns = due_ns
            self._handle = self._loop.call_later(SECOND_LOOK_S, self._look)
        else:
            self._kind = kind
            self._timeout.reschedule(self._loop.time())
            self._handle = self._loop.call_later(0, _nothing)

    def _nearest(self) -> tuple[str, int]:
        total_ns = self._started_ns + _ns(self._meter.limits.total_s)
        kind, due_ns = _phase(self._meter.marks, self._meter.limits, self._started_ns)
        if self._held:
            self._resumed_ns = now_ns()
        if self._resumed_ns:
            due_ns = max(due_ns, self._resumed_ns + _ns(self._meter.limits.gap_s))
        return (kind, due_ns) if due_ns < total_ns else ("total_timeout", total_ns)


def _phase(marks: Marks, limits: Limits, started_ns: int) -> tuple[str, int]:
    """Return the limit that runs in the present phase and when it expires."""
    if marks.last_token is not None:
        return "gap_timeout", marks.last_token + _ns(limits.gap_s)
    if marks.headers is not None:
        return "first_event_timeout", marks.headers + _ns(limits.first_byte_s)
    if marks.sent is not None:
        return "first_byte_timeout", marks.sent + _ns(limits.first_byte_s)
    return "connect_timeout", started_ns + _ns(limits.connect_s) + _ns(limits.write_s)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _nothing() -> None:
    pass
