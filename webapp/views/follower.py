"""One socket's view of an arena: what it has been sent, and everything that is new since.

A follower holds positions, not messages: it looks at the arena and sends the difference, text at most twice per
display frame (it then waits half as long for its frame), read-outs at most five times a second. However slow its
socket is, nothing piles up and no lane waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import orjson
from django.template.loader import render_to_string

from webapp.clock import now_ns
from webapp.core.scenario import Scenario, Step
from webapp.core.spec import BackendSpec
from webapp.services.arena import PARTS, Arena, Slot
from webapp.services.lanes import Lane, Reader
from webapp.views import contexts
from webapp.views.readouts import readout

FRAME_S = 0.008
REST_S = 0.004  # at least, from the end of one frame's work to the next: other sockets want their turn too
READOUT_NS = 200_000_000
MOST_DELTAS = 500  # in one frame: about 20 kB
FIGURES_ON_WIRE = ("ttft_ms", "ttfo_ms", "tpot_ms", "e2e_ms", "output_tokens", "tokens_source", "tok_s")


P = ParamSpec("P")
T = TypeVar("T")
_renderer = ThreadPoolExecutor(1, "renderer")


def strip_marks(steps: Sequence[Step], scenario: Scenario | None) -> dict[str, Any]:
    """Return what the race strip marks, in µs: when each step's text has been spoken, and the limit it is judged by."""
    budget_us = round(scenario.budget_ms * 1000) if scenario else 0
    return {"due_us": [round(step.due_s * 1e6) for step in steps], "budget_us": budget_us}


@dataclass(eq=False, kw_only=True)
class Position(Reader):
    """How much of one lane a socket has seen."""

    lane: Lane
    states: int = 0
    ended: bool = False
    readout_ns: int = 0


async def in_renderer(render: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `render(...)`, run in the one thread that renders: never on the loop that stamps arrivals."""
    work = partial(render, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_renderer, work)


class Follower:
    """Sends an arena's changes through `send` until it is cancelled. With `html` False, JSON only (for scripts)."""

    def __init__(
        self, arena: Arena, send: Callable[[str], Awaitable[None]], specs: Sequence[BackendSpec], html: bool
    ) -> None:
        self.arena = arena
        self.specs = specs
        self._send = send
        self._html = html
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._positions: dict[str, Position] = {}
        self._versions = dict(arena.versions)
        self._done_run = ""
        self._sequence = 0
        self._rendering: tuple[Position, asyncio.Future[str]] | None = None

    def wake(self, urgent: bool) -> None:
        """Watcher of the arena: there may be something new, `urgent` if it should not wait for the next frame."""
        self._wake.set()
        if urgent:
            self._urgent.set()

    def behind(self) -> bool:
        """Whether this socket has yet to be sent a part of the page that has changed."""
        return self._versions != self.arena.versions

    async def run(self, have: dict[str, int], run_id: str, fragments: bool) -> None:
        """Attach and follow. `have` are the numbers of deltas that the page holds of run `run_id`, by lane."""
        self.arena.followers.append(self)
        try:
            if fragments:
                await self._send_parts(PARTS)
            await self._send_json(self._attached())
            await self._meet_lanes(have, run_id)
            loop = asyncio.get_running_loop()
            while True:
                due_s = loop.time() + FRAME_S
                await self._flush()
                await self._pause(max(due_s, loop.time() + REST_S))
        finally:
            self.arena.followers.remove(self)

    async def _pause(self, due_s: float) -> None:
        """Wait until a frame is due, then for something new; a running arena is looked at for its clocks too."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due_s):
                await self._urgent.wait()
        self._urgent.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(READOUT_NS / 1e9 if self.arena.running else None):
                await self._wake.wait()
        self._wake.clear()

    async def _flush(self) -> None:
        changed = [part for part in PARTS if self.arena.versions[part] != self._versions[part]]
        if changed:
            await self._send_parts(changed)
        await self._meet_lanes({}, "")
        await self._send_states()
        while await self._send_deltas():
            pass
        await self._send_ends()
        await self._send_readouts()
        run = self.arena.run
        if run is None or self.arena.running or self._done_run == run.id or self.behind():
            return
        if self._all_ended():
            self._done_run = run.id
            await self._send_json({"type": "done", "run": run.id})

    def _attached(self) -> dict[str, Any]:
        arena = self.arena
        lanes = [
            {"lane": slot.id, "backend": slot.spec.slug, "label": slot.spec.label, "badge": slot.spec.badge}
            for slot in arena.slots
        ]
        return {"type": "attached", "arena": arena.id, "run": arena.run.id if arena.run else None, "lanes": lanes}

    # -- JSON: text and times ---------------------------------------------------------------------------------------

    async def _meet_lanes(self, have: dict[str, int], run_id: str) -> None:
        """Announce lanes that this socket does not know yet, all of them in one frame."""
        new: list[Slot] = []
        for slot in self.arena.slots:
            lane, position = slot.lane, self._positions.get(slot.id)
            if lane is not None and (position is None or position.lane is not lane):
                known = have.get(slot.id, 0) if lane.run_id == run_id else 0
                if position is not None:
                    position.lane.unfollow(position)
                self._positions[slot.id] = position = Position(lane=lane, deltas=min(known, lane.delta_count))
                lane.follow(position)
                new.append(slot)
        run = self.arena.run
        if new and run is not None:
            scenario = self.arena.ask.scenario
            await self._send_json(
                {
                    "type": "run",
                    "run": run.id,
                    "lanes": [self._lane_frame(slot) for slot in new],
                    "rerun": len(new) < len(self.arena.slots),
                    "order": run.ask.order,
                    "scenario": scenario.slug if scenario else "",
                    **strip_marks(run.ask.steps, scenario),
                }
            )

    def _lane_frame(self, slot: Slot) -> dict[str, Any]:
        lane = slot.lane
        return {
            "lane": slot.id,
            "letter": self.arena.letter(slot),
            "label": slot.spec.label,
            "badge": lane.badge if lane else slot.spec.badge,
            "steps": len(lane.steps) if lane else 1,
        }

    def _known(self) -> list[Position]:
        """Return the positions of the lanes that are on the page, in their order."""
        return [self._positions[slot.id] for slot in self.arena.slots if slot.id in self._positions and slot.lane]

    async def _send_states(self) -> None:
        for position in self._known():
            lane = position.lane
            states = lane.states()
            # The last state of an ended lane goes out after its last text.
            most = len(states) - 1 if lane.ended and not position.ended else len(states)
            for state in states[position.states : most]:
                at_us = lane.us(state.at_ns)
                frame = {"type": "state", "run": lane.run_id, "lane": lane.id, "state": state.name}
                await self._send_json({**frame, "at_us": at_us, "step": state.step})
            position.states = max(position.states, most)

    async def _send_deltas(self) -> bool:
        """Send one frame with every lane's new text; True where more is waiting."""
        lanes: dict[str, Any] = {}
        run_id, more = "", False
        for position in self._known():
            new = position.lane.since(position.deltas, MOST_DELTAS)
            if new:
                lanes[position.lane.id] = {"from": position.deltas, "d": new}
                position.lane.show(position, len(new))
                run_id = position.lane.run_id
                more = more or len(new) == MOST_DELTAS
        if lanes:
            self._sequence += 1
            await self._send_json({"type": "deltas", "run": run_id, "seq": self._sequence, "lanes": lanes})
        return more

    async def _send_ends(self) -> None:
        for position in self._known():
            lane = position.lane
            if not lane.ended or position.ended or position.deltas < lane.delta_count:
                continue
            position.ended = True
            await self._send_states()
            await self._send_json(self._end_frame(lane))
            if self._html:
                answer = await in_renderer(contexts.answer, lane.id, lane)
                await self._send_html("arena/_answer.html", {"answer": answer})
                await self._send(await in_renderer(_readout_html, lane, self.arena.ask.scenario, now_ns()))

    def _end_frame(self, lane: Lane) -> dict[str, Any]:
        figures = lane.turns[-1].figures().as_dict() if lane.turns else {}
        return {
            "type": "end",
            "run": lane.run_id,
            "lane": lane.id,
            "outcome": lane.outcome,
            "error": lane.shortfall,
            "error_kind": lane.error.kind if lane.error else "",
            "at_us": lane.us(lane.end_ns) if lane.end_ns is not None else 0,
            "took_us": lane.took_us,
            "figures": {name: figures.get(name) for name in FIGURES_ON_WIRE},
        }

    def _all_ended(self) -> bool:
        return all(position.ended for position in self._known())

    async def _send_json(self, message: dict[str, Any]) -> None:
        await self._send(orjson.dumps(message).decode())

    # -- HTML: everything else --------------------------------------------------------------------------------------

    async def _send_parts(self, parts: Sequence[str]) -> None:
        shown = {part: self.arena.versions[part] for part in parts}
        if self._html:
            for part in parts:
                await self._send_html(f"arena/_{part}.html", self._part_context(part))
        self._versions.update(shown)

    def _part_context(self, part: str) -> dict[str, Any]:
        arena = self.arena
        if part == "lanes":
            return {"arena": contexts.arena_context(arena, self.specs)}
        if part == "prompt":
            return {"prompt": contexts.prompt_context(arena)}
        if part == "verdict":
            return {"verdict": contexts.verdict_context(arena.verdict, arena.running)}
        return {"notice": contexts.notice_context(arena)}

    async def _send_html(self, template: str, context: dict[str, Any]) -> None:
        await self._send(await in_renderer(render_to_string, template, context))

    async def _send_readouts(self) -> None:
        """Send the read-out that has been rendered and have the next one rendered: text waits for neither."""
        if not self._html:
            return
        if self._rendering is not None and self._rendering[1].done():
            (position, rendered), self._rendering = self._rendering, None
            if position in self._known() and not position.ended:  # else its lane is gone, or has its last read-out
                await self._send(rendered.result())
        if self._rendering is None and (oldest := self._overdue()) is not None:
            oldest.readout_ns = now_ns()
            work = in_renderer(_readout_html, oldest.lane, self.arena.ask.scenario, oldest.readout_ns)
            rendered = asyncio.ensure_future(work)
            rendered.add_done_callback(lambda _: self.wake(False))
            self._rendering = (oldest, rendered)

    def _overdue(self) -> Position | None:
        """Return the running lane whose read-out is the oldest, None where all are fresh. One at a time, so that the
        page's work for them is spread over its frames."""
        running = [position for position in self._known() if not position.lane.ended]
        oldest = min(running, key=lambda position: position.readout_ns, default=None)
        return oldest if oldest is not None and now_ns() - oldest.readout_ns >= READOUT_NS else None


def _readout_html(lane: Lane, scenario: Scenario | None, at_ns: int) -> str:
    return render_to_string("arena/_readout.html", {"readout": readout(lane.id, lane, scenario, at_ns)})
