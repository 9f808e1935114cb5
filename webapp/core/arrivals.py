"""When requests are meant to leave in an open loop: seeded schedules, the same for one worker and for many.

A schedule is a rate over time and a way of scattering arrivals around it. Arrivals of a process with unit rate are
drawn first and mapped through the inverse of the integrated rate (time rescaling), so that constant, Poisson and gamma
arrivals all follow ramps and steps, and that a rate can be changed while it runs: what was due before the change keeps
its time and number, what comes after it is drawn out or drawn together. Pure: no clock, its own random generator.
"""

# ruff: noqa: S311 (seeded draws, not secrets)
from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from itertools import pairwise
from math import isfinite, sqrt
from random import Random
from typing import NamedTuple

KINDS = ("constant", "poisson", "gamma")
MAX_TRACE = 200_000


class Arrival(NamedTuple):
    """The `number`-th arrival of a schedule, `at_ns` after its start; lengths are set where a trace gives them."""

    number: int
    at_ns: int
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What to dispatch. `rates` are (seconds, arrivals per second) points, joined by straight lines.

    `cv` is the coefficient of variation of gamma gaps: 1 is Poisson, more is burstier. `spikes` are (seconds, count):
    everybody presses Enter. A `trace` of (seconds, input tokens, output tokens) replaces everything else.
    """

    kind: str = "poisson"
    rates: tuple[tuple[float, float], ...] = ()
    cv: float = 1.0
    spikes: tuple[tuple[float, int], ...] = ()
    trace: tuple[tuple[float, int | None, int | None], ...] = ()

    def arrivals(self, seed: int, duration_s: float) -> Iterator[Arrival]:
        """Yield all arrivals before `duration_s`, in order. The same seed gives the same ones."""
        for number, (at_s, inputs, outputs) in enumerate(self._due(seed, duration_s)):
            if at_s >= duration_s:
                return
            yield Arrival(number, round(at_s * 1e9), inputs, outputs)

    def share(self, seed: int, duration_s: float, worker: int, workers: int) -> Iterator[Arrival]:
        """Yield one worker's arrivals: every `workers`-th of the one schedule, so that together they are all of it."""
        return (arrival for arrival in self.arrivals(seed, duration_s) if arrival.number % workers == worker)

    def beyond(self, duration_s: float) -> int:
        """Return how many arrivals of a trace come too late for a run of `duration_s`."""
        return sum(at_s >= duration_s for at_s, _, _ in self.trace)

    def most(self) -> float:
        """Return the highest rate per second."""
        return max((rate for _, rate in self.rates), default=0.0)

    @property
    def steerable(self) -> bool:
        """Whether there is a rate that could be changed: not in a trace, nor where there are spikes alone."""
        return bool(self.rates) and not self.trace

    def steered(self, at_s: float, rate: float) -> Schedule:
        """Return this schedule with `rate` from `at_s` on. Arrivals before stay the same, numbers included."""
        before = tuple(point for point in self.rates if point[0] < at_s)
        return replace(self, rates=(*before, (at_s, self.rate_at(at_s)), (at_s, rate)))

    def rate_at(self, at_s: float) -> float:
        """Return the rate per second at a time; of two at one time the later."""
        return value_at(self.rates, at_s)

    def _due(self, seed: int, duration_s: float) -> Iterator[tuple[float, int | None, int | None]]:
        if self.trace:
            return iter(self.trace)
        spikes = sorted(at_s for at_s, count in self.spikes for _ in range(count))
        return ((at_s, None, None) for at_s in merge(self._times(seed, duration_s), spikes))

    def _times(self, seed: int, duration_s: float) -> Iterator[float]:
        random = Random(f"arrivals {seed}")
        due = self._gap(random)
        for from_s, to_s, start, end in _segments(self.rates, duration_s):
            length_s = to_s - from_s
            area = (start + end) / 2 * length_s
            slope = (end - start) / length_s
            while due <= area > 0:
                yield from_s + _inverse(start, slope, due)
                due += self._gap(random)
            due -= area

    def _gap(self, random: Random) -> float:
        """Draw a gap of mean 1."""
        if self.kind == "constant":
            return 1.0
        if self.kind == "poisson" or self.cv == 1.0:
            return random.expovariate(1.0)
        shape = 1 / self.cv**2  # a gamma variable of shape k has a coefficient of variation of 1/sqrt(k)
        return random.gammavariate(shape, 1 / shape)


def flat(kind: str, rate: float, cv: float = 1.0) -> Schedule:
    """Return a schedule of one steady rate per second."""
    return Schedule(kind, ((0.0, rate),), cv)


def ramp(kind: str, start: float, end: float, duration_s: float, cv: float = 1.0) -> Schedule:
    """Return a schedule whose rate goes from `start` to `end` within `duration_s`."""
    return Schedule(kind, ((0.0, start), (duration_s, end)), cv)


def steps(kind: str, rates: Sequence[float], duration_s: float, cv: float = 1.0) -> Schedule:
    """Return a schedule of equally long steps."""
    length_s = duration_s / len(rates)
    points = [(k * length_s + end * length_s, rate) for k, rate in enumerate(rates) for end in (0, 1)]
    return Schedule(kind, tuple(points), cv)


def read_trace(text: str) -> tuple[tuple[float, int | None, int | None], ...]:
    """Read a CSV of times and lengths, with or without a heading.

    Columns: seconds, input tokens, output tokens; the lengths may be missing. With a heading, columns are found by
    name: `timestamp`/`time`/`t_s`, anything with "input", "context" or "prompt", anything with "output" or
    "generated" (so that the published Azure traces are read as they are, once their times are seconds). Times are
    counted from the first. Raises ValueError that names the line.
    """
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError("The trace is empty.")
    columns = [0, 1, 2]
    start = 0
    if not _is_number(rows[0][0]):
        columns = _columns(rows[0])
        start = 1
    found = []
    for number, row in enumerate(rows[start:], start + 1):
        try:
            at_s, inputs, outputs = (_cell(row, column) for column in columns)
        except ValueError:
            raise ValueError(f"Line {number} of the trace is not: seconds, input tokens, output tokens.") from None
        if at_s is None:
            raise ValueError(f"Line {number} of the trace has no time.")
        found.append((at_s, None if inputs is None else int(inputs), None if outputs is None else int(outputs)))
    if not found:
        raise ValueError("The trace has a heading and no line below it.")
    if len(found) > MAX_TRACE:
        raise ValueError(f"The trace has {len(found):,} arrivals; at most {MAX_TRACE:,} are taken.")
    first_s = min((at_s for at_s, _, _ in found), default=0.0)
    return tuple(sorted(((at_s - first_s, i, o) for at_s, i, o in found), key=lambda entry: entry[0]))


def value_at(points: Sequence[tuple[float, float]], at_s: float) -> float:
    """Return the value at a time of (seconds, value) points joined by straight lines; 0 without points.

    The first value holds before its time, the last after; where two points share a time the later one holds from it.
    """
    if not points:
        return 0.0
    before = [point for point in points if point[0] <= at_s]
    after = [point for point in points if point[0] > at_s]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (a_s, a), (b_s, b) = before[-1], after[0]
    return a + (b - a) * (at_s - a_s) / (b_s - a_s)


def _segments(rates: Sequence[tuple[float, float]], duration_s: float) -> list[tuple[float, float, float, float]]:
    """Return (from s, to s, rate at from, rate at to) up to `duration_s`; the last rate goes on."""
    if not rates:
        return []
    points = [*rates, (max(duration_s, rates[-1][0]), rates[-1][1])]
    if points[0][0] > 0:
        points.insert(0, (0.0, points[0][1]))
    return [(a_s, b_s, a, b) for (a_s, a), (b_s, b) in pairwise(points) if b_s > a_s]


def _inverse(start: float, slope: float, due: float) -> float:
    """Return after how long the integral of a rate that begins at `start` and grows by `slope` reaches `due`."""
    if abs(slope) < 1e-12:
        return due / start
    # start*t + slope*t*t/2 = due, solved for t in the form without cancellation.
    return 2 * due / (start + sqrt(max(0.0, start * start + 2 * slope * due)))


def _columns(heading: Sequence[str]) -> list[int]:
    names = [name.strip().lower() for name in heading]

    def find(*parts: str) -> int:
        return next((k for k, name in enumerate(names) if any(part in name for part in parts)), -1)

    at = find("time", "t_s", "seconds")
    if at < 0:
        raise ValueError("The trace's heading names no column of times (timestamp, time or t_s).")
    return [at, find("input", "context", "prompt"), find("output", "generated")]


def _cell(row: Sequence[str], column: int) -> float | None:
    """Return a number, None for an empty cell. Raises ValueError for anything else, infinity and NaN among it."""
    text = row[column].strip() if 0 <= column < len(row) else ""
    if not text:
        return None
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
