"""Two load runs side by side: is one faster, or can that not be told from these samples?

Works from the bars that a result keeps (`loadsummary.bars`), never from its requests. A percentile's interval is that
of order statistics (no assumption about the distribution), with the edges of the bars taken the cautious way; there is
a difference only where the intervals of both runs, at 99 % each, do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

Z99 = 2.575829
SAME = 0.05  # intervals that differ by less than this share of the smaller value are called the same
CANNOT_TELL, NO_DIFFERENCE, A_LESS, B_LESS = "cannot tell", "no difference", "A less", "B less"
Bars = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A percentile in ms with the interval that its samples support."""

    ms: float
    low_ms: float
    high_ms: float
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


def estimate(bars: Bars, percent: float) -> Estimate | None:
    """Return a percentile of (from ms, to ms, count) bars; None where the samples do not bound it on both sides."""
    n = round(sum(bar[2] for bar in bars))
    share = percent / 100
    middle, half = n * share, Z99 * sqrt(n * share * (1 - share))
    low, high = floor(middle - half), ceil(middle + half) + 1
    if low < 1 or high > n:
        return None
    at_low, _ = _edges(bars, low)
    _, at_high = _edges(bars, high)
    return Estimate(sum(_edges(bars, max(1, ceil(middle)))) / 2, at_low, at_high, n)


def difference(a_bars: Bars, b_bars: Bars, percent: float) -> Difference:
    """Compare one percentile of two runs."""
    a, b = estimate(a_bars, percent), estimate(b_bars, percent)
    if a is None or b is None:
        return Difference(a, b, None, None, CANNOT_TELL)
    low, high = b.low_ms - a.high_ms, b.high_ms - a.low_ms
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
