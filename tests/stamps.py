"""Reported figures held against the simulator's own stamps of what it wrote when, within 2 ms or 2 %.

What a busy machine adds between a write and its reading is in every figure and no error of it. By how late this process
and the app's loop are woken meanwhile, a figure may be late too, and each has to agree once in a few runs; nothing is
asked of a run that the app itself calls too busy. What is computed wrongly disagrees in all of them. That a figure
follows from its marks, and is not below the truth, is asked of every run.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import Any

from webapp.core.verdict import BUSY_LAG_MS

RUNS = 8
TOKENS = 40  # few: with a count that is one off, the pace is off by more than 2 %
KEYS = ("ttft", "tpot", "e2e")
NAP_S = 0.002


class Lateness:
    """How late this process was woken while the block ran: `ms`, which nine in ten wakings kept below."""

    def __init__(self) -> None:
        self._late_ms: list[float] = []

    @property
    def ms(self) -> float:
        return sorted(self._late_ms)[len(self._late_ms) * 9 // 10]

    async def __aenter__(self) -> Lateness:
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None):
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(NAP_S)
            self._late_ms.append((time.monotonic() - before - NAP_S) * 1000)


@dataclass(frozen=True)
class Reported:
    """A figure as it is reported, in ms, and by how much its digits may hide of it."""

    ms: float
    hidden_ms: float = 1e-9


def check(lane: dict[str, Any], reported: dict[str, Reported | None], late_ms: float) -> set[str]:
    """Return the figures that agree with the stamps; fail where one contradicts the marks or comes before the truth.

    `lane` is one of `compare --json` or of a run's record. None is a figure that is reported as unknown: an answer that
    a busy machine reads in one go has no pace.
    """
    lag_ms = lane["loop_lag_p99_ms"] or 0.0
    late_ms = late_ms + lag_ms if lag_ms <= BUSY_LAG_MS else inf
    tokens = (lane.get("figures") or lane)["output_tokens"]
    stamps = next(times["emitted"] for times in lane["server_times"].values())
    marks = {name: lane["marks_ns"][name] for name in ("sent", "first_token", "last_token")}
    steps = tokens - stamps["first_tokens"]
    true = _figures(stamps["arrived_ns"], stamps["first_ns"], stamps["last_ns"], steps)
    marked = _figures(marks["sent"], marks["first_token"], marks["last_token"], steps)
    agreeing = set()
    for key, figure in reported.items():
        if figure is None:
            assert key == "tpot"
            agreeing |= {key} if late_ms == inf else set()
            continue
        assert abs(figure.ms - marked[key]) <= figure.hidden_ms, (key, figure, marked[key])
        many = steps if key == "tpot" else 1  # a pace is judged by the time of all its steps: that is what was measured
        off_ms = (marked[key] - true[key]) * many
        assert key == "tpot" or off_ms > 0, f"{key} is below what the server itself took"
        if abs(figure.ms - true[key]) * many <= max(2.0, 0.02 * true[key] * many) + late_ms + figure.hidden_ms * many:
            agreeing.add(key)
    return agreeing


def _figures(start_ns: int, first_ns: int, last_ns: int, steps: int) -> dict[str, float]:
    return {
        "ttft": (first_ns - start_ns) / 1e6,
        "tpot": (last_ns - first_ns) / 1e6 / steps,
        "e2e": (last_ns - start_ns) / 1e6,
    }
