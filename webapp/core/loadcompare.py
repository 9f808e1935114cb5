"""Two load runs side by side: is one faster, or can that not be told from these samples?

Works from the bars that a result keeps (`loadsummary.bars`), never from its requests. A percentile's interval is that
of order statistics (no assumption about the distribution but that the samples are independent), with the edges of the
bars taken the cautious way; there is a difference only where the intervals of both runs do not meet.

What is compared has one sample per request. The gaps of one answer are not independent: thousands of them from twenty
streams say as little as twenty do, and an interval that takes them for thousands tells two equal runs apart. And the
more is looked at, the likelier one of it stands out by chance, so that the intervals hold at 99 % all together
(Bonferroni). A simulator whose host held it up says by how much at most; times from a request's start may be too large
by that, and their intervals reach down so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt
from statistics import NormalDist

from webapp.core.stats import ENOUGH_FOR

COMPARED = (("ttft", 50), ("ttft", 95), ("tpot", 50), ("e2e", 50))
FROM_START = ("ttft", "e2e")  # figures that a host's lateness is in; a pace is a mean over the answer
SURE = 0.99  # that no interval of a run misses its percentile, however many there are
SAME = 0.05  # intervals that differ by less than this share of the smaller value are called the same
CANNOT_TELL, NO_DIFFERENCE, A_LESS, B_LESS = "cannot tell", "no difference", "A less", "B less"
Bars = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run measured of one backend: {figure: bars}, and by how many ms its simulator was late at most."""

    bars: Mapping[str, Bars]
    late_ms: float = 0.0


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


def differences(pairs: Sequence[tuple[Measured, Measured]]) -> list[list[Difference]]:
    """Compare what two runs measured of some backends: for each of these one difference per entry of COMPARED."""
    looks = len(pairs) * len(COMPARED)
    return [[_difference(a, b, figure, percent, looks) for figure, percent in COMPARED] for a, b in pairs]


def _difference(a: Measured, b: Measured, figure: str, percent: int, looks: int) -> Difference:
    late = (a.late_ms, b.late_ms) if figure in FROM_START else (0.0, 0.0)
    return difference(a.bars.get(figure, ()), b.bars.get(figure, ()), percent, looks, late)


def estimate(bars: Bars, percent: int, looks: int = 1) -> Estimate | None:
    """Return a percentile of (from ms, to ms, count) bars, one of `looks` that are looked at; None where the samples do
    not support it.
    """
    n = round(sum(bar[2] for bar in bars))
    if n < ENOUGH_FOR[percent]:
        return None
    share = percent / 100
    z = NormalDist().inv_cdf(1 - (1 - SURE) / looks / 2)
    middle, half = n * share, z * sqrt(n * share * (1 - share))
    low, high = floor(middle - half), ceil(middle + half) + 1
    found = sum(_edges(bars, max(1, ceil(middle)))) / 2
    if low < 1 or high > n:
        return Estimate(found, None, n)
    return Estimate(found, (_edges(bars, low)[0], _edges(bars, high)[1]), n)


def difference(
    a_bars: Bars, b_bars: Bars, percent: int, looks: int = 1, late_ms: tuple[float, float] = (0.0, 0.0)
) -> Difference:
    """Compare one percentile of two runs, one of `looks` that are looked at; A's and B's may be too large by
    `late_ms`.
    """
    a, b = estimate(a_bars, percent, looks), estimate(b_bars, percent, looks)
    if a is None or b is None or a.interval_ms is None or b.interval_ms is None:
        return Difference(a, b, None, None, CANNOT_TELL)
    low = b.interval_ms[0] - late_ms[1] - a.interval_ms[1]
    high = b.interval_ms[1] - (a.interval_ms[0] - late_ms[0])
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
