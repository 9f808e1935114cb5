"""What a load generator uses while all its users are at work: its start, its ramp and its reports are not in it.

A generator that loads torch needs half a minute of CPU time before its first request, and seconds more or less from one
start to the next. So the CPU time of everything that it started is looked at while it runs, and what counts is the
stretch in which the load is steady, the same for ours and for others.
"""

from __future__ import annotations

import asyncio
import os
import time
from asyncio.subprocess import Process
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.processes import family_cpu_s

LOOK_S = 0.25


@dataclass(slots=True)
class Usage:
    """The CPU time of a process and all that it started, as it grew: at `times_ns` (monotonic) it was `used_s`."""

    times_ns: list[int] = field(default_factory=list)
    used_s: list[float] = field(default_factory=list)

    @property
    def whole_s(self) -> float:
        return self.used_s[-1]

    def look(self, pid: int) -> None:
        self.add(family_cpu_s(pid))

    def add(self, used_s: float) -> None:
        self.used_s.append(max(used_s, self.whole_s if self.used_s else 0.0))  # who has gone takes nothing away
        self.times_ns.append(time.monotonic_ns())

    def between(self, start_ns: int, end_ns: int) -> float:
        """Return the CPU time used between two instants, s; between looks it is taken to grow evenly."""
        return self._at(end_ns) - self._at(start_ns)

    def _at(self, at_ns: int) -> float:
        place = min(max(1, bisect_left(self.times_ns, at_ns)), len(self.times_ns) - 1)
        (a_ns, b_ns), (a_s, b_s) = self.times_ns[place - 1 : place + 1], self.used_s[place - 1 : place + 1]
        return a_s + (b_s - a_s) * (at_ns - a_ns) / (b_ns - a_ns)


async def followed(process: Process) -> Usage:
    """Wait for the end of a process and return what it used, with all that it started."""
    usage, before = Usage(), os.times()
    usage.look(process.pid)
    while process.returncode is None:
        await asyncio.sleep(LOOK_S)
        usage.look(process.pid)
    await process.wait()
    after = os.times()
    usage.add(after.children_user + after.children_system - before.children_user - before.children_system)
    return usage


def steady(streams: Sequence[dict[str, Any]], users: int) -> tuple[int, int]:
    """Return from when to when all users were at work, monotonic ns: from the end of as many answers as there are users
    to the arrival of the last request. `streams` is the reference stream's log."""
    return sorted(stream["end_ns"] for stream in streams)[users - 1], max(stream["arrival_ns"] for stream in streams)


def tokens_between(streams: Sequence[dict[str, Any]], start_ns: int, end_ns: int) -> float:
    """Return how many tokens were written in a stretch of time; each stream writes its own evenly, as of the first, or
    of the request's arrival where there is no pace and the first goes unrecorded."""
    found = 0.0
    for stream in streams:
        first_ns, last_ns = stream["written_ns"] or stream["arrival_ns"], stream["end_ns"]
        if stream["tokens"] and last_ns > first_ns:
            inside_ns = min(last_ns, end_ns) - max(first_ns, start_ns)
            found += stream["tokens"] * max(0, inside_ns) / (last_ns - first_ns)
    return found
