"""Summaries of samples: nearest-rank percentiles, always together with their n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil

# Samples from which a percentile is worth reading: the largest of n samples lies above the true p-quantile with
# probability 1 - p**n, and at these n that is at least 0.63. Below them figures are shown greyed.
ENOUGH_FOR = {50: 2, 90: 10, 95: 20, 99: 100}


@dataclass(frozen=True, slots=True)
class Summary:
    """n samples and their mean, percentiles and maximum, all in the unit of the samples."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of `ordered` (ascending, not empty): always a value that was measured."""
    if not ordered:
        raise ValueError("no samples")
    return ordered[max(0, ceil(percent * len(ordered) / 100) - 1)]


def summarise(samples: Sequence[float]) -> Summary | None:
    """Return the summary of `samples` in any order, or None where there are none."""
    if not samples:
        return None
    ordered = sorted(samples)
    return Summary(
        n=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        max=ordered[-1],
    )
