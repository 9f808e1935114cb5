"""Where an answer's time went, from connection set-up to its last text, as the bar under a lane's figures shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from webapp.core.timing import NS_PER_MS
from webapp.services.lanes import Lane
from webapp.services.turns import LiveTurn
from webapp.views.words import time_text

LEAST_WORDED = 10  # thousandths


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of an answer's time; `x` and `width` in thousandths of the lane's own total. Not `known`: hatched."""

    key: str
    label: str
    text: str
    x: int
    width: int
    known: bool

    @property
    def worded(self) -> bool:
        """Whether it is named below the bar: what is under 1 % there would only take room from the rest."""
        return self.width >= LEAST_WORDED


def phases(lane: Lane, now_ns: int) -> list[Phase]:
    """Return where the lane's time went, in order, from connection set-up to the last text.

    The wait for the first token is split into network, queue and prefill only where the server reported its own
    times; otherwise it is one phase that is not known further.
    """
    parts: list[tuple[str, str, float, bool]] = []
    for turn in lane.turns:
        parts += _phases_of(turn, now_ns)
    merged: dict[str, tuple[str, float, bool]] = {}
    for key, label, ms, known in parts:
        before = merged.get(key, (label, 0.0, True))
        merged[key] = (label, before[1] + ms, before[2] and known)
    if tools := _tool_ms(lane):
        merged["tool"] = ("tools", tools, True)
    total = sum(ms for _, ms, _ in merged.values())
    return list(_laid_out(merged.items(), total)) if total > 0 else []


def _laid_out(items: Iterable[tuple[str, tuple[str, float, bool]]], total: float) -> Iterable[Phase]:
    at = 0.0
    for key, (label, ms, known) in items:
        text, unit = time_text(ms)
        x, end = round(at / total * 1000), round((at + ms) / total * 1000)
        yield Phase(key, label, f"{text} {unit}", x, end - x, known)
        at += ms


def _phases_of(turn: LiveTurn, now_ns: int) -> list[tuple[str, str, float, bool]]:
    marks = turn.marks
    found = []
    if marks.connect is not None and marks.connected is not None:
        found.append(("connect", "connect", (marks.connected - marks.connect) / NS_PER_MS, True))
    if marks.sent is None:
        return found
    until = marks.end if marks.end is not None else now_ns
    wait_ms = ((marks.first_token or until) - marks.sent) / NS_PER_MS
    found += _wait(turn, wait_ms)
    if marks.first_token is None:
        return found
    last = marks.last_token or until
    answer = marks.first_output if marks.first_output is not None else last
    if answer > marks.first_token:
        found.append(("think", "think", (answer - marks.first_token) / NS_PER_MS, True))
    if last > answer:
        found.append(("answer", "answer", (last - answer) / NS_PER_MS, True))
    return found


def _wait(turn: LiveTurn, wait_ms: float) -> list[tuple[str, str, float, bool]]:
    times = turn.meter.server_times.get("Cerebras") or turn.meter.server_times.get("Groq", {})
    queue, prompt = times.get("queue_time"), times.get("prompt_time")
    if not isinstance(queue, int | float) or not isinstance(prompt, int | float):
        return [("prefill", "wait", wait_ms, False)]
    api = times.get("api_time", 0)  # the simulator's own: what lies before its queue
    queue_ms, prompt_ms, api_ms = queue * 1000, prompt * 1000, api * 1000 if isinstance(api, int | float) else 0.0
    rest = wait_ms - queue_ms - prompt_ms - api_ms
    if min(queue_ms, prompt_ms, api_ms, rest) < 0:  # its clock and ours do not fit together: show what we know
        return [("prefill", "wait", wait_ms, False)]
    split = (("network", rest), ("front end", api_ms), ("queue", queue_ms), ("prefill", prompt_ms))
    return [(name.replace(" ", "-"), name, ms, True) for name, ms in split if ms or name != "front end"]


def _tool_ms(lane: Lane) -> float:
    begun = [state.step for state in lane.pauses if state.name == "tool"]
    return sum(lane.steps[step].tool_ms for step in begun if step < len(lane.steps))
