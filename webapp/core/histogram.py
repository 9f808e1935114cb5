"""An additive log-linear histogram: exact counts, relative error under 1 %, merged by adding.

Values are whole numbers, here nanoseconds. Below 256 each value has a bucket of its own; above, every power of two is
cut into 128 buckets, so that a bucket is at most 1/128 of its value wide and its middle at most 0.4 % away. The idea is
that of HdrHistogram; the plain dict of counts is what makes merging exact and cheap: 200,000 samples of a steady stream
take some 300 entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from webapp.core.stats import ENOUGH_FOR

MANTISSA_BITS = 7
EXACT_BELOW = 2 << MANTISSA_BITS


def bucket_of(value: int) -> int:
    """Return the bucket of a value >= 0; buckets are in the order of their values."""
    exponent = value.bit_length() - MANTISSA_BITS - 1
    if exponent <= 0:
        return value
    return (exponent << MANTISSA_BITS) + (value >> exponent)


def bounds_of(bucket: int) -> tuple[int, int]:
    """Return the smallest value of a bucket and the smallest above it."""
    if bucket < EXACT_BELOW:
        return bucket, bucket + 1
    exponent = (bucket >> MANTISSA_BITS) - 1
    mantissa = bucket - (exponent << MANTISSA_BITS)
    return mantissa << exponent, (mantissa + 1) << exponent


@dataclass(slots=True)
class Histogram:
    """Counts of values. n, total, min and max are exact; percentiles are the middles of buckets."""

    counts: dict[int, int] = field(default_factory=dict)
    n: int = 0
    total: int = 0
    min: int | None = None
    max: int | None = None

    def record(self, value: int, times: int = 1) -> None:
        """Add a value; below 0 counts as 0 (two readings of one clock can tie, not run backwards)."""
        value = max(0, value)
        bucket = bucket_of(value)
        self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.n += times
        self.total += value * times
        self.min = value if self.min is None or value < self.min else self.min
        self.max = value if self.max is None or value > self.max else self.max

    def record_all(self, values: Sequence[int]) -> None:
        """Add many values; the same as `record` for each, at a third of its price."""
        if not values:
            return
        if min(values) < 0:
            values = [max(0, value) for value in values]
        counts = self.counts
        for value in values:
            exponent = value.bit_length() - MANTISSA_BITS - 1  # as in `bucket_of`, without the call
            bucket = value if exponent <= 0 else (exponent << MANTISSA_BITS) + (value >> exponent)
            counts[bucket] = counts.get(bucket, 0) + 1
        self.n += len(values)
        self.total += sum(values)
        least, most = min(values), max(values)
        self.min = least if self.min is None else min(self.min, least)
        self.max = most if self.max is None else max(self.max, most)

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts: the result is the same as if this one had recorded all its values."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.n += other.n
        self.total += other.total
        ends = [end for end in (self.min, self.max, other.min, other.max) if end is not None]
        self.min, self.max = (min(ends), max(ends)) if ends else (None, None)

    @property
    def mean(self) -> float | None:
        return self.total / self.n if self.n else None

    def percentile(self, percent: float) -> float | None:
        """Return the nearest-rank percentile, or None where there is no value."""
        if not self.n or self.min is None or self.max is None:
            return None
        rank = min(self.n, max(1, ceil(percent * self.n / 100)))
        if rank == self.n:
            return float(self.max)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                low, high = bounds_of(bucket)
                return float(min(max((low + high - 1) / 2, self.min), self.max))
        return float(self.max)

    def percentiles(self, percents: Iterable[float]) -> list[float | None]:
        return [self.percentile(percent) for percent in percents]

    def bars(self) -> Iterator[tuple[int, int, int]]:
        """Yield (from, to, count) for every bucket in use, in order."""
        for bucket in sorted(self.counts):
            yield (*bounds_of(bucket), self.counts[bucket])

    def summary(self, unit: float = 1e6) -> dict[str, float | int | None]:
        """Return n, mean, p50, p90, p95, p99 and max, divided by `unit` (ns to ms by default).

        A percentile that so few samples cannot support is None, see `stats.ENOUGH_FOR`.
        """
        block: dict[str, float | int | None] = {"n": self.n, "mean": _over(self.mean, unit)}
        for percent, needed in ENOUGH_FOR.items():
            block[f"p{percent}"] = _over(self.percentile(percent), unit) if self.n >= needed else None
        return {**block, "max": _over(self.max, unit)}

    @property
    def zeros(self) -> float:
        """The share of values that are 0; 0.0 without a value."""
        return self.counts.get(0, 0) / self.n if self.n else 0.0

    def summary_of_gaps(self) -> dict[str, float | int | None]:
        """Return `summary` of gaps between chunks. Those that came in one read are 0 apart: what is 0 is None, for how
        far apart such chunks were sent is not known. The mean holds, for it is the whole time over all gaps.
        """
        found = self.summary()
        return {name: value if name == "n" else value or None for name, value in found.items()}

    def as_data(self) -> dict[str, Any]:
        """Return plain data; `from_data` makes the same histogram of it, from JSON or msgpack alike."""
        return {"counts": dict(self.counts), "n": self.n, "total": self.total, "min": self.min, "max": self.max}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Histogram:
        counts = {int(bucket): int(count) for bucket, count in data["counts"].items()}
        return cls(counts, data["n"], data["total"], data["min"], data["max"])


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else round(value / unit, 6)
