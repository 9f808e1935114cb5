"""What the last seconds looked like: counted while answers still stream, sent often, thrown away soon."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.exchange import Exchange
from webapp.core.histogram import Histogram
from webapp.core.loadrecord import Record

CDF_PERCENTS = tuple(range(0, 101, 5))


@dataclass(slots=True)
class Recent:
    """One backend's news of some while; adds up."""

    ttft: Histogram = field(default_factory=Histogram)
    icl: Histogram = field(default_factory=Histogram)
    ok: int = 0
    failed: int = 0
    left: int = 0
    tokens: int = 0

    def look(self, exchange: Exchange) -> None:
        """Count what has arrived on a running stream since the last look."""
        marks, before = exchange.marks, exchange.seen
        if marks.first_token is not None and marks.sent is not None and not exchange.counted_first:
            exchange.counted_first = True
            self.ttft.record(marks.first_token - marks.sent)
        self.icl.record_all(exchange.look())
        self.tokens += exchange.seen - before

    def end(self, exchange: Exchange, record: Record) -> None:
        """Count how a stream ended, after a last `look`."""
        # Chunks stood for tokens until the server had counted them.
        self.tokens += (record.output_tokens or exchange.seen) - exchange.seen
        self.ok += record.outcome == "done"
        self.failed += record.outcome == "failed"
        self.left += record.outcome == "left"

    def merge(self, other: Recent) -> None:
        self.ttft.merge(other.ttft)
        self.icl.merge(other.icl)
        for name in ("ok", "failed", "left", "tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_data(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("ok", "failed", "left", "tokens")}
        return {**counts, "ttft": self.ttft.as_data(), "icl": self.icl.as_data()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recent:
        counts = {name: data[name] for name in ("ok", "failed", "left", "tokens")}
        return cls(Histogram.from_data(data["ttft"]), Histogram.from_data(data["icl"]), **counts)


class Recently:
    """A window that moves: the news of all processes of the last `seconds`, told at times since the run's start, ns."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._parts: deque[tuple[int, dict[str, Recent]]] = deque()
        self._from_ns = 0  # the first part holds what happened since

    def add(self, at_ns: int, news: dict[str, Recent]) -> None:
        self._parts.append((at_ns, news))

    def figures(self, at_ns: int, slug: str) -> dict[str, Any]:
        """Return one backend's figures; rates over the window, or over the run while it is younger."""
        while self._parts and at_ns - self._parts[0][0] > self._seconds * 1e9:
            self._from_ns, _ = self._parts.popleft()
        total = Recent()
        for _, news in self._parts:
            if slug in news:
                total.merge(news[slug])
        # From part to part: several processes tell of their last moments late at both ends, by as much.
        span_s = max(0.5, (self._parts[-1][0] - self._from_ns) / 1e9) if self._parts else 1.0
        return {
            "n": total.ttft.n,
            "ttft_p50_ms": _ms(total.ttft.percentile(50)),
            "ttft_p95_ms": _ms(total.ttft.percentile(95)),
            "icl_p50_ms": _ms(total.icl.percentile(50) or None),  # 0: of chunks that came in one read
            "icl_p95_ms": _ms(total.icl.percentile(95) or None),
            "ttft_cdf_ms": [_ms(value) for value in total.ttft.percentiles(CDF_PERCENTS)] if total.ttft.n else [],
            "output_tokens_per_s": round(total.tokens / span_s, 2),
            "requests_per_s": round(total.ok / span_s, 3),
            "errors_per_s": round(total.failed / span_s, 3),
            "left_per_s": round(total.left / span_s, 3),
        }


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value / 1e6, 3)
