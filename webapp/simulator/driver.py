"""Run an engine on the wall clock: one driver per model, shared by all who ask it.

A step's end is an appointment with the pacer. What the step has yielded is handed out then, and the next step begins
at that end, not at the late wake-up, so that lateness never accumulates: a host that is several steps late hands out
all of them at once. Requests join at the first step boundary after they are due. Where a profile has a front end of one
process, both pass through it. When no two requests depend on the host's lateness for their order, the trace is the one
that the virtual clock gives.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import chain
from math import exp
from random import Random
from typing import Protocol

from webapp.simulator.engine import Ask, Engine, Refused, RequestTimes, Step
from webapp.simulator.front_end import FrontEnd
from webapp.simulator.metrics import Metrics
from webapp.simulator.pacing import Appointment, Fire
from webapp.simulator.profile import Profile

GATHER_NS = 1_000_000  # a host later than this sends what several steps have yielded in one write
MOST_STEPS = 64  # in one go: a driver that is far behind must not hold up the others


class Listener(Protocol):
    """One who waits for tokens."""

    def feed(self, count: int, due_ns: int) -> bool:
        """Take tokens that are due at `due_ns`, which may lie ahead; return whether no more are wanted."""

    def finish(self, times: RequestTimes) -> None:
        """Learn that no more will come. A flush follows, when the last is due."""

    def flush(self, now_ns: int) -> None:
        """Send what was fed and is due; it is `now_ns`."""

    def fail(self, message: str) -> None:
        """Learn that nothing will come at all."""


class Timer(Protocol):
    """What the driver needs of a Pacer."""

    now_ns: Callable[[], int]

    def call(self, at_ns: int, fire: Fire) -> Appointment:
        """Call `fire` at `at_ns` and whenever it asks."""


class Driver:
    """One engine, its clock, and who listens to it."""

    def __init__(
        self, engine: Engine, timer: Timer, metrics: Metrics, slots: int, front: FrontEnd | None = None
    ) -> None:
        self.metrics = metrics
        self._slots = slots
        self._left_over = 0  # asked, and not let in by the last step
        self._engine = engine
        self._timer = timer
        self._listeners: dict[int, Listener] = {}
        self._front = front or FrontEnd()
        self._coming: list[tuple[int, int, Ask]] = []  # a heap, by when the front end may begin with each
        self._taken_in: deque[Ask] = deque()  # by it; `arrived_ns` is when each reaches the engine
        self._leaving: deque[tuple[int, int, Listener]] = deque()  # when it hands tokens out, and to whom
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
        there = self.running + self.waiting + len(self._coming) + len(self._taken_in)
        return max(stuck + 1 if stuck else 0, there + 1 - self._slots)

    @property
    def kv_usage(self) -> float:
        """The used share of the KV cache, 0 to 1."""
        return self._engine.kv_used / self._engine.kv_capacity

    def submit(self, due_ns: int, prompt_tokens: int, output_tokens: int, listener: Listener) -> int:
        """Send a request that reaches the engine at `due_ns`, later where it waits for others in the front end.

        Return its number, for `cancel`.
        """
        self._last_id += 1
        ask = Ask(self._last_id, prompt_tokens, output_tokens, arrived_ns=due_ns)
        self._listeners[ask.id] = listener
        heappush(self._coming, (due_ns - self._front.request_ns, ask.id, ask))
        self.metrics.prompt_tokens += prompt_tokens
        begins_ns = self._next_ns()
        if self._step is None and begins_ns is not None:
            self._appoint(begins_ns)
        return ask.id

    def cancel(self, ask_id: int) -> None:
        """Forget a request; its slot and its KV cache are free at once. Nothing happens where it is over."""
        if self._listeners.pop(ask_id, None) is None:
            return
        self._engine.cancel(ask_id)
        self._taken_in = deque(ask for ask in self._taken_in if ask.id != ask_id)
        self._coming = [coming for coming in self._coming if coming[1] != ask_id]
        heapify(self._coming)

    def _appoint(self, at_ns: int) -> None:
        if self._appointment is not None and self._appointment.fire is not None:
            if self._due_ns <= at_ns:
                return
            self._appointment.fire = None
        self._due_ns = at_ns
        self._appointment = self._timer.call(at_ns, self._fire)

    def _fire(self, now_ns: int) -> int | None:
        """Hand out every step that has ended; return when the next one will have, or its tokens leave the front end."""
        fed = self._left(now_ns)
        for _ in range(MOST_STEPS):
            at_ns = self._next_ns()
            if at_ns is None or at_ns > now_ns:
                break
            self._take_in(at_ns)
            if self._step is not None:
                self.metrics.step(self._step, now_ns - at_ns)
                self._hand_out(self._step, fed)
                if now_ns - at_ns < GATHER_NS:
                    self._flush(fed)
            self._admit(at_ns)
            self._step = self._engine.step(at_ns)
            self._left_over = self._engine.waiting
        self._flush(fed | self._left(now_ns))
        at_ns = self._next_ns()
        if self._leaving:
            at_ns = min(at_ns or self._leaving[0][0], self._leaving[0][0])
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

    def _left(self, now_ns: int) -> dict[int, Listener]:
        """Return those to whom the front end has handed tokens out since it was asked last."""
        fed: dict[int, Listener] = {}
        while self._leaving and self._leaving[0][0] <= now_ns:
            _, ask_id, listener = self._leaving.popleft()
            fed[ask_id] = listener
        return fed

    def _next_ns(self) -> int | None:
        """Return when the step under way ends, or when a request comes to the engine or its front end."""
        if self._step is not None:
            return self._step.ends_ns
        if self._taken_in:
            return self._taken_in[0].arrived_ns
        return self._coming[0][0] if self._coming else None

    def _take_in(self, until_ns: int) -> None:
        """Let the front end have who came before the tokens of the step that ends at `until_ns`."""
        while self._coming and self._coming[0][0] <= until_ns:
            came_ns, _, ask = heappop(self._coming)
            self._taken_in.append(replace(ask, arrived_ns=self._front.take_in(came_ns)))

    def _admit(self, boundary_ns: int) -> None:
        while self._taken_in and self._taken_in[0].arrived_ns <= boundary_ns:
            ask = self._taken_in.popleft()
            try:
                self._engine.submit(ask)
            except Refused as problem:  # checked at the door, so this is a defect; it must not stop the others
                self._listeners.pop(ask.id).fail(str(problem))

    def _hand_out(self, step: Step, fed: dict[int, Listener]) -> None:
        listeners, due_ns = self._listeners, step.ends_ns
        out_ns = self._front.hand_out(step)
        over: list[int] = []
        for ask_id, count in step.emitted:
            listener = listeners.get(ask_id)
            if listener is None:  # cancelled in the meantime
                continue
            if out_ns:
                due_ns = out_ns[ask_id]
                self._leaving.append((due_ns, ask_id, listener))
            else:
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


def front_end(profile: Profile) -> FrontEnd:
    """Return a front end for one driver of this profile."""
    return FrontEnd.of(profile.api_ms, profile.token_us)


def api_ns(profile: Profile, seed: int) -> int:
    """Return how long a request of this seed takes to reach the engine: HTTP, tokenising, the network of a service."""
    sigma = profile.api_sigma
    noise = exp(Random(f"api {profile.slug} {seed}").gauss(-sigma * sigma / 2, sigma))  # a factor whose mean is 1
    return int(profile.api_ms * 1e6 * noise)
