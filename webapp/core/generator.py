"""Whether a load generator could keep up: its own lateness, judged against the latencies that it reports.

A run in which the generator was the bottleneck is "generator-limited" and says nothing about the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webapp.core.histogram import Histogram
from webapp.core.stats import ENOUGH_FOR

VALID = "valid"
LIMITED = "generator-limited"
# Lateness that is no reason for doubt: a time slice or two on a busy machine, one frame of a display.
FLOOR_NS = 20_000_000
SLOW_GAP_NS = 10_000_000  # gaps below are shorter than the slices in which any machine schedules
SHARE_OF_TTFT = 0.05
SHARE_OF_ICL = 0.5
BUSY = 0.9  # of one core: a process above has no time left in which it could wait for anything


@dataclass(slots=True)
class Watch:
    """What one or several generator processes saw of themselves inside the measured window.

    `hub_lag` are overshoots of a sleep of 50 ms, `send_late` the time from when a request was meant to leave to when
    the generator began with it, both ns; `cpu` the busiest process's share of one core.
    """

    hub_lag: Histogram = field(default_factory=Histogram)
    send_late: Histogram = field(default_factory=Histogram)
    cpu: float = 0.0

    def merge(self, other: Watch) -> None:
        self.hub_lag.merge(other.hub_lag)
        self.send_late.merge(other.send_late)
        self.cpu = max(self.cpu, other.cpu)

    def as_data(self) -> dict[str, Any]:
        return {"hub_lag": self.hub_lag.as_data(), "send_late": self.send_late.as_data(), "cpu": self.cpu}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Watch:
        return cls(Histogram.from_data(data["hub_lag"]), Histogram.from_data(data["send_late"]), data["cpu"])

    def reasons(self, ttft: Histogram, icl: Histogram) -> list[str]:
        """Return why the latencies in these histograms (ns) are the generator's own, each as one sentence."""
        found = []
        lag, late = self.hub_lag.percentile(99) or 0.0, self.send_late.percentile(99) or 0.0
        often = self.hub_lag.percentile(95) or 0.0
        first, gap = ttft.percentile(50), icl.percentile(50)
        bound = max(FLOOR_NS, SHARE_OF_TTFT * (first or 0.0))
        if lag > bound:
            found.append(f"The generator's loop was late by {lag / 1e6:.0f} ms ({_named(self.hub_lag, 99)}).")
        elif gap is not None and gap >= SLOW_GAP_NS and often > SHARE_OF_ICL * gap:
            late_by = f"{often / 1e6:.0f} ms ({_named(self.hub_lag, 95)})"
            found.append(f"The loop was late by {late_by}, against gaps of {gap / 1e6:.0f} ms (p50).")
        if late > bound:
            found.append(f"Requests began {late / 1e6:.0f} ms late ({_named(self.send_late, 99)}).")
        if self.cpu >= BUSY:
            found.append(f"A generator process used {self.cpu:.0%} of a core; add --workers.")
        return found

    def summary(self, reasons: list[str]) -> dict[str, Any]:
        """Return the `generator` block of a summary."""
        return {
            "hub_lag_ms": self.hub_lag.summary(),
            "send_late_ms": self.send_late.summary(),
            "cpu_cores": round(self.cpu, 3),
            "verdict": LIMITED if reasons else VALID,
            "reasons": reasons,
        }


def _named(histogram: Histogram, percent: int) -> str:
    """Return what a percentile is to be called: of too few samples it is the largest."""
    return f"p{percent}" if histogram.n >= ENOUGH_FOR[percent] else f"the largest of {histogram.n}"
