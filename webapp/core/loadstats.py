"""The statistics of a load run: one record per user request in, histograms and counts per backend, a summary out.

Successes and failures never share a histogram. Everything here adds up: a worker's statistics merged into another's
are what one process would have counted. Times are ns of the generator's clock, counted from the run's start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webapp.core.histogram import Histogram
from webapp.core.loadrecord import CATEGORIES, Record, category
from webapp.core.slo import Slo, wilson
from webapp.core.stats import ENOUGH_FOR

NS_PER_S = 1_000_000_000
FIGURES = ("ttft", "ttfo", "tpot", "icl", "e2e")
LENGTHS = ("input_tokens", "output_tokens")
EXAMPLES = 5
TOGETHER_WARNING = 0.2  # of all chunks may come in one read with the one before, before it is said aloud
PART_WARNING = 0.05  # from sending and from the intended time may differ by this share before it is said aloud


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of a run, ns from its start: what begins before or after is warm-up or cool-down."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        return max(0, self.end - self.start) / NS_PER_S

    def holds(self, at: int | None) -> bool:
        return at is not None and self.start <= at < self.end


@dataclass(slots=True)
class BackendStats:
    """Counts and histograms of one backend; `merge` adds another's.

    `delivered_tokens`, `gone` (users who left) and `last` (when the last request ended, ns after the run's start) are
    of the whole run; the other counts are of its window. `overdue`
    are those of the `interrupted` that had missed the SLO already when the run ended: to leave them out would flatter a
    server that answers too late to be counted.
    """

    ok: int = 0
    failed: int = 0
    left: int = 0
    interrupted: int = 0
    overdue: int = 0
    outside: int = 0
    good: int = 0
    ended: int = 0
    ended_good: int = 0
    estimated: int = 0
    tokens_in_window: float = 0.0
    delivered_tokens: int = 0
    gone: int = 0
    last: int = 0
    by_error: dict[str, int] = field(default_factory=dict)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def add(self, record: Record, window: Window, slo: Slo) -> None:
        """Count a request: figures where it was meant to begin inside the window, rates where it happened in it."""
        good = record.outcome == "done" and slo.met(_ms(record.figures_ns()))
        if record.outcome == "done" and window.holds(record.end):
            self.ended += 1
            self.ended_good += good
        self.tokens_in_window += _tokens_in(record, window)
        self.delivered_tokens += record.output_tokens or 0
        self.gone += record.outcome == "left"
        self.last = max(self.last, record.end)
        if not window.holds(record.intended):
            self.outside += 1
            return
        self.histogram("late").record(record.late_ns)
        if record.outcome == "done":
            self.ok += 1
            self.good += good
            self.estimated += record.tokens_source != "usage"
            self._figures(record)
        elif record.outcome == "failed":
            self.failed += 1
            self._error(record)
        elif record.outcome == "left":
            self.left += 1
            self.histogram("left").record(record.end - record.intended)
        else:
            self.interrupted += 1
            self.overdue += not slo.met(_ms(_at_least(record)), so_far=True)

    @property
    def asked(self) -> int:
        """How many requests the attainment is a share of."""
        return self.ok + self.failed + self.left + self.overdue

    def histogram(self, name: str) -> Histogram:
        return self.histograms.setdefault(name, Histogram())

    def merge(self, other: BackendStats) -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last = max(self.last, other.last)
        for kind, count in other.by_error.items():
            self.by_error[kind] = self.by_error.get(kind, 0) + count
        for key, example in other.examples.items():
            known = self.examples.get(key)
            if known is not None:
                known["count"] += example["count"]
            elif len(self.examples) < EXAMPLES * len(CATEGORIES):
                self.examples[key] = dict(example)
        for name, histogram in other.histograms.items():
            self.histogram(name).merge(histogram)

    def as_data(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in _COUNTS}
        histograms = {name: histogram.as_data() for name, histogram in self.histograms.items()}
        return {
            **counts,
            "last": self.last,
            "by_error": self.by_error,
            "examples": self.examples,
            "histograms": histograms,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BackendStats:
        stats = cls(**{name: data[name] for name in (*_COUNTS, "last")})
        stats.by_error, stats.examples = dict(data["by_error"]), dict(data["examples"])
        stats.histograms = {name: Histogram.from_data(entry) for name, entry in data["histograms"].items()}
        return stats

    def _figures(self, record: Record) -> None:
        late = (record.sent or record.intended) - record.intended
        for figure, value in record.figures_ns().items():
            if value is None or figure == "icl":
                continue
            self.histogram(figure).record(value)
            # Gaps and paces have no start, so that theirs are the same from the intended time.
            self.histogram(f"{figure}_sched").record(value if figure == "tpot" else value + late)
        self.histogram("icl").record_all(record.gaps_ns)
        if (connect := record.since("connected", record.marks.get("connect"))) is not None:
            self.histogram("connect").record(connect)
        for name in LENGTHS:
            if (tokens := getattr(record, name)) is not None:
                self.histogram(name).record(tokens)

    def _error(self, record: Record) -> None:
        found = category(record.error_kind, record.status)
        self.by_error[found] = self.by_error.get(found, 0) + 1
        key = f"{record.error_kind}: {record.error}"[:300]
        if key in self.examples:
            self.examples[key]["count"] += 1
        elif len(self.examples) < EXAMPLES * len(CATEGORIES):
            example = {"category": found, "kind": record.error_kind, "message": record.error[:300]}
            self.examples[key] = {**example, "status": record.status, "number": record.number, "count": 1}


_COUNTS = (
    "ok", "failed", "left", "interrupted", "overdue", "outside", "good", "ended", "ended_good", "estimated",
    "tokens_in_window", "delivered_tokens", "gone",
)  # fmt: skip


@dataclass(slots=True)
class LoadStats:
    """All backends of a run."""

    window: Window
    slo: Slo = field(default_factory=Slo)
    backends: dict[str, BackendStats] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        self.backend(record.backend).add(record, self.window, self.slo)

    def backend(self, slug: str) -> BackendStats:
        return self.backends.setdefault(slug, BackendStats())

    @property
    def last(self) -> int:
        """When the last request ended, ns after the run's start; 0 without one."""
        return max((backend.last for backend in self.backends.values()), default=0)

    def merge(self, other: LoadStats) -> None:
        for slug, stats in other.backends.items():
            self.backend(slug).merge(stats)

    def as_data(self) -> dict[str, Any]:
        return {slug: stats.as_data() for slug, stats in self.backends.items()}

    def merge_data(self, data: Mapping[str, Any]) -> None:
        """Add what another process sent with `as_data`."""
        for slug, entry in data.items():
            self.backend(slug).merge(BackendStats.from_data(entry))

    def summary(self, slugs: Sequence[str], measured_s: float | None = None) -> dict[str, dict[str, Any]]:
        """Return the `backends` block of summary.json; `measured_s` where the run ended before its window did."""
        seconds = self.window.seconds if measured_s is None else measured_s
        return {slug: summary_of(self.backend(slug), seconds, self.slo) for slug in slugs}


def summary_of(stats: BackendStats, seconds: float, slo: Slo) -> dict[str, Any]:
    """Return one backend's block. Rates are per second of the measured window."""
    asked = stats.asked
    low, high = wilson(stats.good, asked)
    rate = _per(seconds)
    block: dict[str, Any] = {
        "requests": {
            "ok": stats.ok,
            "failed": stats.failed,
            "by_error": dict(sorted(stats.by_error.items())),
            "left": stats.left,
            "interrupted": stats.interrupted,
            "overdue": stats.overdue,
            "asked": asked,
            "outside_window": stats.outside,
        },
    }
    for figure in FIGURES:
        if figure == "icl":
            block["icl_ms"] = block["icl_sched_ms"] = stats.histogram(figure).summary_of_gaps()
            continue
        block[f"{figure}_ms"] = stats.histogram(figure).summary()
        block[f"{figure}_sched_ms"] = stats.histogram(f"{figure}_sched").summary()
    block["left_ms"] = stats.histogram("left").summary()
    block["connect_ms"] = stats.histogram("connect").summary()
    for name in LENGTHS:
        block[name] = stats.histogram(name).summary(unit=1)
    return {
        **block,
        "output_tokens_per_s": rate(stats.tokens_in_window),
        "requests_per_s": rate(stats.ended),
        "goodput_per_s": rate(stats.ended_good) if slo else None,
        "attainment": stats.good / asked if slo and asked else None,
        "attainment_interval": [low, high] if slo and asked else None,
        "tokens_estimated": stats.estimated,
        "errors": sorted(stats.examples.values(), key=lambda example: -example["count"]),
        "warnings": _warnings(stats, slo),
    }


def enough(stats: BackendStats, slo: Slo) -> bool:
    """Whether the samples support an answer: for an SLO as many as its share needs, else enough for a median."""
    if not slo:
        return stats.ok >= ENOUGH_FOR[50] or stats.failed > 0
    return stats.asked >= wanted(slo)


def wanted(slo: Slo) -> int:
    """Return how many requests it takes to say whether an SLO's share is attained."""
    return next((n for percent, n in ENOUGH_FOR.items() if percent / 100 >= slo.target), ENOUGH_FOR[99])


def exit_code(stats: LoadStats, slugs: Sequence[str], limited: bool) -> int:
    """Return 0 pass, 1 errors in the run, 3 SLO missed, 4 not measurable (generator-limited or too few samples)."""
    found = [stats.backend(slug) for slug in slugs]
    if any(backend.failed for backend in found):
        return 1
    if limited or not all(enough(backend, stats.slo) for backend in found):
        return 4
    if stats.slo and any(_attained(backend) < stats.slo.target for backend in found):
        return 3
    return 0


def _attained(stats: BackendStats) -> float:
    return stats.good / stats.asked if stats.asked else 0.0


def _warnings(stats: BackendStats, slo: Slo) -> list[str]:
    found = []
    sent, intended = (stats.histogram(name).percentile(95) for name in ("ttft", "ttft_sched"))
    if sent is not None and intended is not None and intended - sent > max(1e6, PART_WARNING * sent):
        found.append(
            f"Requests left late: TTFT p95 is {sent / 1e6:.0f} ms from sending but {intended / 1e6:.0f} ms from the "
            "intended time; users feel the second."
        )
    if (share := stats.histogram("icl").zeros) > TOGETHER_WARNING:
        found.append(
            f"{share:.0%} of chunks came in one read with the one before; how far apart they were sent is not known."
        )
    if stats.estimated:
        found.append(f"{stats.estimated} answers came without usage; their token counts are estimates.")
    if stats.interrupted:
        found.append(f"{stats.interrupted} requests were cut short by the run's end; long answers are missing.")
    if not enough(stats, slo):
        found.append(f"Too few samples ({stats.ok}) for an answer.")
    return found


def _at_least(record: Record) -> dict[str, int | None]:
    """Return what the figures of an unfinished request cannot fall below any more, ns."""
    waited = record.end - (record.sent or record.intended)
    figures = record.figures_ns()
    return {**figures, "ttft": figures["ttft"] or waited, "ttfo": figures["ttfo"] or waited, "e2e": waited}


def _tokens_in(record: Record, window: Window) -> float:
    """Return the tokens that arrived inside the window; chunks of one answer share its tokens evenly."""
    tokens = record.output_tokens
    first = record.marks.get("first_token")
    if not tokens or first is None:
        return 0.0
    last = record.marks.get("last_token") or first
    if window.holds(first) and window.holds(last):
        return float(tokens)
    if last < window.start or first >= window.end:
        return 0.0
    at, inside = first, int(window.holds(first))
    for gap in record.gaps_ns:
        at += gap
        inside += window.holds(at)
    return tokens * inside / (len(record.gaps_ns) + 1)


def _ms(values: Mapping[str, int | None]) -> dict[str, float | None]:
    return {name: None if value is None else value / 1e6 for name, value in values.items()}


def _per(seconds: float) -> Any:
    return lambda amount: amount / seconds if seconds > 0 else None
