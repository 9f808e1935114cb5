"""An arena: what one page shows, kept on the server so that a page that comes back finds everything as it was.

A page, its second tab and a script on the page's socket all follow the same object. It changes through verbs; each
change raises the version of the part of the page that it touches, and followers catch up with the versions. Nothing
is queued for a follower, so a slow one costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from webapp.core.errors import Outcome
from webapp.core.scenario import Scenario
from webapp.core.spec import BackendSpec
from webapp.core.verdict import Verdict
from webapp.models import new_id
from webapp.services.lanes import Lane
from webapp.services.runs import LETTERS, Ask, Entry, Run, verdict_on

MAX_LANES = len(LETTERS)
KEPT_KEYS = 100
KEY_CHARS = 100
PARTS = ("lanes", "prompt", "verdict", "notice")
SETTLE_S = 0.5
SETTLE_STEP_S = 0.01


class Follower(Protocol):
    """Somebody who shows an arena: a page's socket."""

    def wake(self, urgent: bool) -> None: ...

    def behind(self) -> bool: ...


class Refused(Exception):
    """A request that cannot be carried out now; its text is one plain sentence for the person who asked."""


@dataclass
class Slot:
    """One lane's place on the page: its backend, its conversation so far, and what it last ran."""

    id: str
    spec: BackendSpec
    source: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    lane: Lane | None = None


@dataclass
class Arena:
    """One page's state. `followers` are woken whenever there may be something new to show.

    `losses` counts how often the last follower was lost, so that an old grace period does not end a newer one.
    """

    id: str = field(default_factory=new_id)
    slots: list[Slot] = field(default_factory=list)
    ask: Ask = field(default_factory=lambda: Ask(prompt=""))
    run: Run | None = None
    verdict: Verdict | None = None
    notice: tuple[str, str] | None = None
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    followers: list[Follower] = field(default_factory=list)
    losses: int = 0
    _going: Run | None = None
    _keys: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _counter: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def running(self) -> bool:
        """Whether a run has begun whose end is not settled yet: its answers belong into the history first."""
        return self._going is not None

    @property
    def version(self) -> int:
        """Grows with every change of any part: a page that was rendered at another one is out of date."""
        return sum(self.versions.values())

    def letter(self, slot: Slot) -> str:
        return LETTERS[self.slots.index(slot)]

    def slot(self, lane_id: str) -> Slot:
        for slot in self.slots:
            if slot.id == lane_id:
                return slot
        raise Refused("That lane is not here any more.")

    # -- lanes ------------------------------------------------------------------------------------------------------

    def add(self, spec: BackendSpec, source: str = "") -> Slot:
        if len(self.slots) >= MAX_LANES:
            raise Refused(f"There is room for {MAX_LANES} lanes; remove one first.")
        number = next(self._counter)
        slot = Slot(f"{LETTERS[len(self.slots)].lower()}{number}", spec, source)
        self.slots.append(slot)
        self.touch("lanes")
        return slot

    def remove(self, lane_id: str) -> None:
        if len(self.slots) == 1:
            raise Refused("One lane has to stay.")
        slot = self.slot(lane_id)
        if slot.lane is not None:
            slot.lane.stop()
        self.slots.remove(slot)
        self.touch("lanes")

    def swap(self, lane_id: str, spec: BackendSpec, source: str = "") -> None:
        """Give a lane another backend; its conversation begins anew."""
        slot = self.slot(lane_id)
        if slot.lane is not None:
            slot.lane.stop()
        slot.spec, slot.source, slot.lane, slot.history = spec, source, None, []
        self.touch("lanes")

    def move(self, lane_id: str, by: int) -> None:
        slot = self.slot(lane_id)
        place = self.slots.index(slot)
        self.slots.remove(slot)
        self.slots.insert(max(0, min(len(self.slots), place + by)), slot)
        self.touch("lanes")

    def set_lanes(self, lanes: list[tuple[BackendSpec, str]]) -> None:
        """Put these backends in the place of all lanes."""
        if self.running:
            raise Refused("A comparison is still running; stop it first (Esc).")
        if len(lanes) > MAX_LANES:
            raise Refused(f"There is room for {MAX_LANES} lanes.")
        self.slots.clear()
        for spec, source in lanes:
            self.add(spec, source)

    # -- runs -------------------------------------------------------------------------------------------------------

    def has_started(self, key: str) -> bool:
        """Return whether a run was started with this key; "" is no key."""
        return bool(key) and key[:KEY_CHARS] in self._keys

    def begin(self, ask: Ask, key: str, *, keep: bool = True) -> Run | None:
        """Start a comparison on all lanes; None where `key` has started one before (a click that was sent twice)."""
        if self.has_started(key):
            return None
        if self.running:
            raise Refused("A comparison is still running; stop it first (Esc).")
        if not self.slots:
            raise Refused("There is no lane to run; add one first.")
        if _slug(ask.scenario) != _slug(self.ask.scenario):
            self._forget_conversations()
        self.ask = ask
        self._remember(key)
        return self._start(ask, self.slots, keep)

    def rerun(self, lane_id: str, key: str) -> Run | None:
        """Run one lane again, alone, with what the last comparison asked."""
        if self.has_started(key):
            return None
        slot = self.slot(lane_id)
        if self.running:
            raise Refused("A comparison is still running; stop it first (Esc).")
        if self.run is None:
            raise Refused("Nothing has run yet; press Run.")
        if slot.history and slot.lane is not None and slot.lane.outcome is Outcome.DONE:
            slot.history = slot.history[:-2]  # the answer that is being replaced
        self._remember(key)
        return self._start(self.ask, [slot], keep=True)

    def stop(self, lane_id: str = "") -> None:
        """Stop one lane, or all."""
        if lane_id:
            lane = self.slot(lane_id).lane
            if lane is not None:
                lane.stop()
        elif self.run is not None:
            self.run.stop()

    def choose(self, scenario: Scenario | None) -> None:
        """Put a scenario into the prompt box; nothing is sent."""
        if self.running:
            raise Refused("A comparison is still running; stop it first (Esc).")
        self._forget_conversations()
        if scenario is None:
            self.ask = replace(self.ask, scenario=None)
        else:
            self.ask = Ask(
                prompt=scenario.steps[0].prompt,
                scenario=scenario,
                system=scenario.system,
                max_tokens=scenario.max_tokens,
                temperature=self.ask.temperature,
                top_p=self.ask.top_p,
                seed=self.ask.seed,
                cold=self.ask.cold,
                order=self.ask.order,
            )
        self.touch("prompt", "lanes", "verdict")

    def fill(self, prompt: str) -> None:
        """Type a prompt into the box, as a link may; nothing is sent."""
        self.ask = Ask(prompt=prompt, max_tokens=self.ask.max_tokens)
        self.touch("prompt")

    def new(self) -> None:
        """Begin a new conversation in every lane."""
        if self.running:
            raise Refused("A comparison is still running; stop it first (Esc).")
        self._forget_conversations()
        self.touch("prompt", "lanes", "verdict")

    def say(self, level: str, text: str) -> None:
        self.notice = (level, text)
        self.touch("notice")

    def touch(self, *parts: str) -> None:
        """Mark parts of the page as changed."""
        if "lanes" in parts:
            self._relabel()
        for part in parts:
            self.versions[part] += 1
        self.notify(True)

    def notify(self, urgent: bool = False) -> None:
        for follower in self.followers:
            follower.wake(urgent)

    @property
    def turn_number(self) -> int:
        """1 for the first turn of a conversation."""
        return 1 + max((len(slot.history) // 2 for slot in self.slots), default=0)

    def _start(self, ask: Ask, slots: list[Slot], keep: bool) -> Run:
        entries = [Entry(slot.id, self.letter(slot), slot.spec, slot.source, tuple(slot.history)) for slot in slots]
        run = Run(ask, entries, keep=keep, before_start=self._settled)
        for slot, lane in zip(slots, run.lanes, strict=True):
            slot.lane = lane
        self.run, self._going, self.verdict, self.notice = run, run, None, None
        run.watchers.append(self.notify)
        run.start()
        assert run.task is not None
        run.task.add_done_callback(lambda _: self._finished(run))
        self.touch("lanes", "prompt", "verdict", "notice")
        return run

    async def _settled(self) -> None:
        """Wait until the pages show the start: what they are sent is rendered before the clock runs, not after."""
        for _ in range(round(SETTLE_S / SETTLE_STEP_S)):
            if not any(follower.behind() for follower in self.followers):
                return
            await asyncio.sleep(SETTLE_STEP_S)

    def _finished(self, run: Run) -> None:
        self._going = None
        lanes = [slot.lane for slot in self.slots if slot.lane is not None]
        self.verdict = run.verdict if len(run.lanes) == len(lanes) else verdict_on(lanes, run.ask)
        for slot in self.slots:
            lane = slot.lane
            if lane in run.lanes and lane is not None and lane.outcome is Outcome.DONE and len(lane.steps) == 1:
                slot.history += [
                    {"role": "user", "content": run.ask.prompt},
                    {"role": "assistant", "content": lane.text},
                ]
        self.touch("verdict", "prompt")

    def _relabel(self) -> None:
        """Give lanes the letters of their new places; a verdict names letters, so it is made again."""
        for slot in self.slots:
            if slot.lane is not None:
                slot.lane.letter = self.letter(slot)
        if self.verdict is not None and self.run is not None:
            lanes = [slot.lane for slot in self.slots if slot.lane is not None]
            self.verdict = verdict_on(lanes, self.run.ask)
            self.versions["verdict"] += 1

    def _forget_conversations(self) -> None:
        self.run = self.verdict = None
        for slot in self.slots:
            slot.history, slot.lane = [], None

    def _remember(self, key: str) -> None:
        self._keys[key[:KEY_CHARS]] = None
        if len(self._keys) > KEPT_KEYS:
            self._keys.popitem(last=False)


def _slug(scenario: Scenario | None) -> str:
    return scenario.slug if scenario else ""
