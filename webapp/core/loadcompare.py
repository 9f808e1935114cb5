"""Two load runs side by side: is one faster, or can that not be told from these samples?

Works from the bars that a result keeps (`loadsummary.bars`), never from its requests. A percentile's interval is that
of order statistics (no assumption about the distribution), with the edges of the bars taken the cautious way; there is
a difference only where the intervals of both runs, at 99 % each, do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

from webapp.core.stats import ENOUGH_FOR

Z99 = 2.575829
SAME = 0.05  # intervals that differ by less than this share of the smaller value are called the same
CANNOT_TELL, NO_DIFFERENCE, A_LESS, B_LESS = "cannot tell", "no difference", "A less", "B less"
Bars = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A percentile in ms with the interval that its samples support, None where they bound it on one side only."""

    ms: float
    interval_ms: tuple[float, float] | None
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """B − A of one percentile in ms, with its interval; `result` is one of the four words above."""

    a: Estimate | None
    b: Estimate | None
    low_ms: float | None
    high_ms: float | None
    result: str

    @property
    def ms(self) -> float | None:
        return None if self.a is None or self.b is None else self.b.ms - self.a.ms


def estimate(bars: Bars, percent: int) -> Estimate | None:
    """Return a percentile of (from ms, to ms, count) bars; None where the samples do not support it."""
    n = round(sum(bar[2] for bar in bars))
    if n < ENOUGH_FOR[percent]:
        return None
    share = percent / 100
    middle, half = n * share, Z99 * sqrt(n * share * (1 - share))
    low, high = floor(middle - half), ceil(middle + half) + 1
    found = sum(_edges(bars, max(1, ceil(middle)))) / 2
    if low < 1 or high > n:
        return Estimate(found, None, n)
    return Estimate(found, (_edges(bars, low)[0], _edges(bars, high)[1]), n)


def difference(a_bars: Bars, b_bars: Bars, percent: int) -> Difference:
    """Compare one percentile of two runs."""
    a, b = estimate(a_bars, percent), estimate(b_bars, percent)
    if a is None or b is None or a.interval_ms is None or b.interval_ms is None:
        return Difference(a, b, None, None, CANNOT_TELL)
    low, high = b.interval_ms[0] - a.interval_ms[1], b.interval_ms[1] - a.interval_ms[0]
    bound = SAME * min(a.ms, b.ms)
    if -bound <= low and high <= bound:
        result = NO_DIFFERENCE
    elif low > 0:
        result = A_LESS
    elif high < 0:
        result = B_LESS
    else:
        result = CANNOT_TELL
    return Difference(a, b, low, high, result)


def _edges(bars: Bars, rank: int) -> tuple[float, float]:
    """Return the edges of the bar that holds the sample of this rank (from 1)."""
    seen = 0.0
    for low, high, count in bars:
        seen += count
        if seen >= rank:
            return low, high
    return bars[-1][0], bars[-1][1]
