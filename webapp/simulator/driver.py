"""Run an engine on the wall clock: one driver per model, shared by all who ask it.

A step's end is an appointment with the pacer. What the step has yielded is handed out then, and the next step begins
at that end, not at the late wake-up, so that lateness never accumulates: a host that is several steps late hands out
all of them at once. Requests join at the first step boundary after they are due. When no two requests depend on the
host's lateness for their order, the trace is the one that the virtual clock gives.
"""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import chain
from math import exp
from random import Random
from typing import Protocol

from webapp.simulator.engine import Ask, Engine, Refused, RequestTimes, Step
from webapp.simulator.metrics import Metrics
from webapp.simulator.pacing import Appointment, Fire
from webapp.simulator.profile import Profile

GATHER_NS = 1_000_000  # a host later than this sends what several steps have yielded in one write
MOST_STEPS = 64  # in one go: a driver that is far behind must not hold up the others


class Listener(Protocol):
    """One who waits for tokens."""

    def feed(self, count: int, due_ns: int) -> bool:
        """Take tokens that are due at `due_ns`; return whether no more are wanted."""

    def finish(self, times: RequestTimes) -> None:
        """Learn that no more will come. A flush follows."""

    def flush(self, now_ns: int) -> None:
        """Send what was fed; it is `now_ns`."""

    def fail(self, message: str) -> None:
        """Learn that nothing will come at all."""


class Timer(Protocol):
    """What the driver needs of a Pacer."""

    now_ns: Callable[[], int]

    def call(self, at_ns: int, fire: Fire) -> Appointment:
        """Call `fire` at `at_ns` and whenever it asks."""


class Driver:
    """One engine, its clock, and who listens to it."""

    def __init__(self, engine: Engine, timer: Timer, metrics: Metrics, slots: int) -> None:
        self.metrics = metrics
        self._slots = slots
        self._left_over = 0  # asked, and not let in by the last step
        self._engine = engine
        self._timer = timer
        self._listeners: dict[int, Listener] = {}
        self._coming: list[tuple[int, int, Ask]] = []  # a heap: in the front end, due at the engine later
        self._step: Step | None = None
        self._appointment: Appointment | None = None
        self._due_ns = 0
        self._last_id = 0

    @property
    def running(self) -> int:
        return self._engine.running

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue; the next step may let them in."""
        return self._engine.waiting

    def queue_with_one_more(self) -> int:
        """Return how many requests, with another one, would have no slot to expect, or no room in the KV cache."""
        stuck = min(self._left_over, self.waiting)  # some may have left since the last step
        return max(stuck + 1 if stuck else 0, self.running + self.waiting + len(self._coming) + 1 - self._slots)

    @property
    def kv_usage(self) -> float:
        """The used share of the KV cache, 0 to 1."""
        return self._engine.kv_used / self._engine.kv_capacity

    def submit(self, due_ns: int, prompt_tokens: int, output_tokens: int, listener: Listener) -> int:
        """Send a request that reaches the engine at `due_ns`; return its number, for `cancel`."""
        self._last_id += 1
        ask = Ask(self._last_id, prompt_tokens, output_tokens, arrived_ns=due_ns)
        self._listeners[ask.id] = listener
        heappush(self._coming, (due_ns, ask.id, ask))
        self.metrics.prompt_tokens += prompt_tokens
        if self._step is None:
            self._appoint(self._coming[0][0])
        return ask.id

    def cancel(self, ask_id: int) -> None:
        """Forget a request; its slot and its KV cache are free at once. Nothing happens where it is over."""
        if self._listeners.pop(ask_id, None) is None:
            return
        self.metrics.count("abort")
        self._engine.cancel(ask_id)
        self._coming = [coming for coming in self._coming if coming[1] != ask_id] if self._coming else []

    def _appoint(self, at_ns: int) -> None:
        if self._appointment is not None and self._appointment.fire is not None:
            if self._due_ns <= at_ns:
                return
            self._appointment.fire = None
        self._due_ns = at_ns
        self._appointment = self._timer.call(at_ns, self._fire)

    def _fire(self, now_ns: int) -> int | None:
        """Hand out every step that has ended; return when the next one will have."""
        fed: dict[int, Listener] = {}
        at_ns: int | None = None
        for _ in range(MOST_STEPS):
            at_ns = self._next_ns()
            if at_ns is None or at_ns > now_ns:
                break
            if self._step is not None:
                self.metrics.step(self._step, now_ns - at_ns)
                self._hand_out(self._step, fed)
                if now_ns - at_ns < GATHER_NS:
                    self._flush(fed)
            self._admit(at_ns)
            self._step = self._engine.step(at_ns)
            self._left_over = self._engine.waiting
        self._flush(fed)
        self._due_ns = at_ns or 0
        if at_ns is None:
            self._appointment = None
        return at_ns

    def _flush(self, fed: dict[int, Listener]) -> None:
        """Let what was fed go out, before anything else is computed."""
        clock = self._timer.now_ns
        for listener in fed.values():
            listener.flush(clock())
        fed.clear()

    def _next_ns(self) -> int | None:
        if self._step is not None:
            return self._step.ends_ns
        return self._coming[0][0] if self._coming else None

    def _admit(self, boundary_ns: int) -> None:
        while self._coming and self._coming[0][0] <= boundary_ns:
            ask = heappop(self._coming)[2]
            try:
                self._engine.submit(ask)
            except Refused as problem:  # checked at the door, so this is a defect; it must not stop the others
                self._listeners.pop(ask.id).fail(str(problem))

    def _hand_out(self, step: Step, fed: dict[int, Listener]) -> None:
        listeners, due_ns = self._listeners, step.ends_ns
        over: list[int] = []
        for ask_id, count in step.emitted:
            listener = listeners.get(ask_id)
            if listener is None:  # cancelled in the meantime
                continue
            fed[ask_id] = listener
            if listener.feed(count, due_ns):
                over.append(ask_id)
        self._end(step.finished, over)

    def _end(self, finished: Iterable[int], over: Iterable[int]) -> None:
        """Let go of those whose last token the engine has made, or who want no more."""
        for ask_id in chain(finished, over):
            listener = self._listeners.pop(ask_id, None)
            if listener is not None:
                times = self._engine.time_of(ask_id)
                self._engine.cancel(ask_id)
                listener.finish(times)


def api_ns(profile: Profile, seed: int) -> int:
    """Return how long a request of this seed takes to reach the engine: HTTP, tokenising, the network of a service."""
    sigma = profile.api_sigma
    noise = exp(Random(f"api {profile.slug} {seed}").gauss(-sigma * sigma / 2, sigma))  # a factor whose mean is 1
    return int(profile.api_ms * 1e6 * noise)
