"""A lane: the steps of one comparison on one backend, one after the other, and what a display needs to follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from webapp.backends import Backend
from webapp.clock import now_ns
from webapp.core.errors import SHUT_DOWN, Outcome, StreamError
from webapp.core.scenario import Step
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.services.turns import LiveTurn, run_turn

NS_PER_S = 1_000_000_000
NS_PER_US = 1_000
WARM_BEFORE_S = 1.0
WIRE_KIND = {"content": "c", "reasoning": "r", "tool": "t"}

# Deltas that a lane may be ahead of everybody who follows it: twice what a page can ask for in one answer, so no
# answer waits for a display. What is bounded is a stream without an end, read for a page that has stopped reading.
MOST_AHEAD = 65_536

Sleep = Callable[[float], Awaitable[None]]
Notify = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class State:
    """A lane's state and when it began, ns on the web app's clock."""

    at_ns: int
    name: str
    step: int


@dataclass(eq=False)
class Reader:
    """Somebody who follows a lane: how many of its deltas he has been sent."""

    deltas: int = 0


@dataclass
class Lane:
    """One backend's part of a comparison. `turns` grows by one for each step; `outcome` is the lane's own ending.

    `origin_ns` is the instant from which the lane's times are shown: the comparison's common start, or the lane's own
    where lanes run one after the other.
    """

    id: str
    letter: str
    spec: BackendSpec
    steps: tuple[Step, ...]
    make_prompt: Callable[[list[dict[str, Any]]], PromptSpec]
    history: list[dict[str, Any]] = field(default_factory=list)
    source: str = ""
    run_id: str = ""
    turns: list[LiveTurn] = field(default_factory=list)
    pauses: list[State] = field(default_factory=list)
    origin_ns: int = 0
    outcome: Outcome = Outcome.RUNNING
    stop_as: Outcome = Outcome.STOPPED
    task: asyncio.Task[None] | None = None
    readers: list[Reader] = field(default_factory=list)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, backend: Backend, notify: Notify, sleep: Sleep = asyncio.sleep) -> None:
        """Run the steps; the first that is not DONE ends the lane. Cancelling stops it; the cancellation goes on.

        Calls `notify(urgent)` after every read with something in it; urgent for a step's first text.
        """
        try:
            previous = ""
            for number, step in enumerate(self.steps):
                await self._pause(number, step, backend, sleep)
                turn = self._begin(number, step, previous)
                await run_turn(turn, backend, _Listener(self, turn, notify))
                if turn.outcome is not Outcome.DONE:
                    break
                previous = turn.text
            self.outcome = self.turns[-1].outcome
        except asyncio.CancelledError:
            whole = len(self.turns) == len(self.steps) and self.turns[-1].outcome is Outcome.DONE
            self.end(Outcome.DONE if whole else self.stop_as)  # whole: only its connection was waited for
            raise
        finally:
            if self.outcome is Outcome.RUNNING:
                self.outcome = Outcome.ERROR
            notify(True)

    def stop(self, outcome: Outcome = Outcome.STOPPED) -> None:
        """End the lane from our side, as `outcome`; its upstream connection closes at once."""
        if self.task is None and not self.ended:
            self.end(outcome)  # not launched yet; the run passes it over
        if self.task is None or self.task.done():
            return
        self.stop_as = outcome
        if self.turns:
            self.turns[-1].if_cancelled = outcome
        self.task.cancel()

    def end(self, outcome: Outcome) -> None:
        """Set how the lane ended. Where it ended before a step was sent, that step's turn says so, without a figure."""
        self.outcome = outcome
        number = len(self.turns)
        if outcome is Outcome.DONE or (self.turns and self.turns[-1].outcome is not Outcome.DONE):
            return
        turn = self._turn(number, self.steps[number], self.text)
        turn.outcome = outcome
        turn.marks.end = now_ns() if self.origin_ns else None
        self.turns.append(turn)

    def hold(self, turns: list[LiveTurn], origin_ns: int = 0) -> None:
        """Be the lane of turns that ended elsewhere: behind the machine wire, or long ago."""
        self.turns, self.outcome, self.origin_ns = turns, turns[-1].outcome, origin_ns

    def follow(self, reader: Reader) -> None:
        self.readers.append(reader)

    def unfollow(self, reader: Reader) -> None:
        self.readers.remove(reader)
        self._room.set()

    def show(self, reader: Reader, deltas: int) -> None:
        """Note that `reader` has been sent `deltas` more."""
        reader.deltas += deltas
        self._room.set()

    @property
    def too_far_ahead(self) -> bool:
        """True where there are readers and none of them has come near what has arrived."""
        return bool(self.readers) and self.delta_count - max(r.deltas for r in self.readers) > MOST_AHEAD

    async def caught_up(self) -> None:
        """Return once a reader has come near, or nobody reads any more."""
        while self.too_far_ahead:
            self._room.clear()
            await self._room.wait()

    @property
    def ended(self) -> bool:
        return self.outcome is not Outcome.RUNNING

    @property
    def error(self) -> StreamError | None:
        return self.turns[-1].error if self.turns else None

    @property
    def shortfall(self) -> str:
        """Why the answer is not whole, in one sentence; empty where it is, and where a person stopped it."""
        if self.error is not None:
            return self.error.message
        return SHUT_DOWN if self.outcome is Outcome.INTERRUPTED else ""

    @property
    def badge(self) -> str:
        return self.turns[-1].badge if self.turns else self.spec.badge

    @property
    def text(self) -> str:
        return self.turns[-1].text if self.turns else ""

    @property
    def end_ns(self) -> int | None:
        """When the last text came, or where there was none, when the lane ended."""
        if not self.turns:
            return None
        marks = self.turns[-1].marks
        return marks.last_token if marks.last_token is not None else marks.end

    @property
    def took_us(self) -> float | None:
        """From the lane's first request to its end, as read-out and race strip give it; None where none was sent."""
        sent = self.turns[0].marks.sent if self.turns else None
        return (self.end_ns - sent) / NS_PER_US if sent is not None and self.end_ns is not None else None

    @property
    def delta_count(self) -> int:
        return sum(len(turn.meter.deltas) for turn in self.turns)

    def since(self, have: int, most: int) -> list[list[Any]]:
        """Return at most `most` deltas from the `have`-th on, as `[µs after the origin, kind letter, text, step]`."""
        found: list[list[Any]] = []
        for turn in self.turns:
            deltas = turn.meter.deltas
            if have < len(deltas):
                for at_ns, kind, text, _ in deltas[have : have + most - len(found)]:
                    found.append([self.us(at_ns), WIRE_KIND[kind], text, turn.step])
                if len(found) >= most:
                    break
                have = 0
            else:
                have -= len(deltas)
        return found

    def states(self) -> list[State]:
        """Return every state the lane has been in, oldest first, read off the marks."""
        states = list(self.pauses)
        for turn in self.turns:
            marks, step = turn.marks, turn.step
            reasons = bool(turn.meter.deltas) and turn.meter.deltas[0].kind == "reasoning"
            first = "thinking" if reasons else "streaming"
            for at_ns, name in ((marks.intended, "connecting"), (marks.sent, "prefill"), (marks.first_token, first)):
                if at_ns is not None:
                    states.append(State(at_ns, name, step))
            if reasons and marks.first_output is not None:
                states.append(State(marks.first_output, "streaming", step))
        states.sort(key=lambda state: (state.step, state.at_ns))
        if self.ended:
            names = {Outcome.DONE: "done", Outcome.STOPPED: "stopped", Outcome.INTERRUPTED: "stopped"}
            last_ns = self.end_ns or self.origin_ns
            states.append(State(last_ns, names.get(self.outcome, "failed"), max(0, len(self.turns) - 1)))
        return states

    @property
    def state(self) -> str:
        states = self.states()
        return states[-1].name if states else "waiting"

    def us(self, at_ns: int) -> int:
        return (at_ns - self.origin_ns) // NS_PER_US

    async def _pause(self, number: int, step: Step, backend: Backend, sleep: Sleep) -> None:
        """Wait for a tool of fixed length, or until the step's text has been spoken."""
        if step.tool_ms and number:
            self.pauses.append(State(now_ns(), "tool", number))
            await sleep(step.tool_ms / 1000)
        left_ns = self.origin_ns + round(step.due_s * NS_PER_S) - now_ns()
        if left_ns > 0:
            self.pauses.append(State(now_ns(), "waiting", number))
            early_s = left_ns / NS_PER_S - WARM_BEFORE_S
            if early_s > 0:  # long enough for the kept connection to have been closed
                await sleep(early_s)
                await backend.warm(self.spec, WARM_BEFORE_S / 2)
                left_ns = self.origin_ns + round(step.due_s * NS_PER_S) - now_ns()
            await sleep(max(0, left_ns) / NS_PER_S)

    def _begin(self, number: int, step: Step, previous: str) -> LiveTurn:
        turn = self._turn(number, step, previous)
        # The first step is measured from the common start, a spoken one from when its text was complete.
        due_ns = self.origin_ns + round(step.due_s * NS_PER_S)
        turn.marks.intended = due_ns if number == 0 or step.due_s else now_ns()
        self.turns.append(turn)
        return turn

    def _turn(self, number: int, step: Step, previous: str) -> LiveTurn:
        messages = [*self.history, {"role": "user", "content": step.prompt_after(previous)}]
        return LiveTurn(self.spec, self.make_prompt(messages), step=number)


class _Listener:
    """Tells watchers of new text, the first of a turn at once, and holds a turn that runs away from all of them."""

    def __init__(self, lane: Lane, turn: LiveTurn, notify: Notify) -> None:
        self._lane = lane
        self._deltas = turn.meter.deltas
        self._notify = notify
        self._shown = False

    def __call__(self) -> Awaitable[None] | None:
        urgent = not self._shown and bool(self._deltas)
        self._shown = self._shown or urgent
        self._notify(urgent)
        if len(self._deltas) > MOST_AHEAD and self._lane.too_far_ahead:
            return self._lane.caught_up()
        return None
