"""Paired comparison: the same question to several backends at the same instant, judged pair by pair.

What varies between questions (their lengths, the moment) is the same for both sides of a pair, so that it cancels. The
difference is the median of the pairs' differences with the interval of the sign test (order statistics: no assumption
about the distribution); the probability that one side is faster is the share of pairs with Wilson's interval. Only
when both intervals agree is there a difference: at 99 %, since a live display looks again and again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, sqrt
from typing import Any

from webapp.core.slo import wilson

Z99 = 2.575829
FIGURES = ("ttft", "e2e", "tpot")
FEW = 12  # pairs below which nothing is said: the sign test's 99 % interval needs eight


class Pairing:
    """Collects finished requests by pair. The first backend is A; the others are compared with it."""

    def __init__(self, slugs: Sequence[str]) -> None:
        self._slugs = list(slugs)
        self._open: dict[int, dict[str, dict[str, float]]] = {}
        self.differences: dict[tuple[str, str], list[float]] = {}

    def add(self, data: Mapping[str, Any]) -> None:
        """Take one record (as its line of requests.jsonl tells it); failed ones leave their pair incomplete."""
        if data["outcome"] != "done" or data.get("pair") is None:
            return
        marks = data["marks_us"]
        sent = marks["sent"]
        figures = {"tpot": data["tpot_us"]}
        for figure, mark in (("ttft", "first_token"), ("e2e", "last_token")):
            figures[figure] = None if marks[mark] is None or sent is None else marks[mark] - sent
        key = data["pair"] * 1000 + data.get("turn", 0)
        pair = self._open.setdefault(key, {})
        pair[data["backend"]] = {name: value / 1000 for name, value in figures.items() if value is not None}
        if len(pair) == len(self._slugs):
            del self._open[key]
            self._close(pair)

    def verdicts(self) -> list[dict[str, Any]]:
        """Return one entry per backend other than A and figure."""
        return [
            {"a": self._slugs[0], "b": slug, "figure": figure, **verdict(self.differences.get((slug, figure), []))}
            for slug in self._slugs[1:]
            for figure in FIGURES
        ]

    def _close(self, pair: Mapping[str, Mapping[str, float]]) -> None:
        first = pair[self._slugs[0]]
        for slug in self._slugs[1:]:
            for figure in FIGURES:
                if figure in first and figure in pair[slug]:
                    difference = first[figure] - pair[slug][figure]
                    self.differences.setdefault((slug, figure), []).append(difference)


def verdict(differences_ms: Sequence[float]) -> dict[str, Any]:
    """Judge A minus B in ms, pair by pair.

    `result`: "A faster", "B faster", "no difference" or "cannot tell" (too few pairs). Ties count half for each side.
    """
    n = len(differences_ms)
    ordered = sorted(differences_ms)
    wins = sum(value < 0 for value in ordered) + sum(value == 0 for value in ordered) / 2
    p_low, p_high = wilson(round(wins), n, Z99)
    low, high = median_interval(ordered)
    block: dict[str, Any] = {
        "n": n,
        "difference_ms": _median(ordered),
        "interval_ms": [low, high],
        "p_a_faster": wins / n if n else None,
        "p_interval": [p_low, p_high],
    }
    if n < FEW or low is None or high is None:
        return {**block, "result": "cannot tell"}
    if high < 0 and p_low > 0.5:
        return {**block, "result": "A faster"}
    if low > 0 and p_high < 0.5:
        return {**block, "result": "B faster"}
    return {**block, "result": "no difference"}


def median_interval(ordered: Sequence[float], z: float = Z99) -> tuple[float | None, float | None]:
    """Return the distribution-free interval of the median: the order statistics that the sign test does not reject."""
    n = len(ordered)
    rank = floor(n / 2 - z * sqrt(n) / 2)
    if rank < 1:
        return None, None
    return ordered[rank - 1], ordered[n - rank]


def _median(ordered: Sequence[float]) -> float | None:
    n = len(ordered)
    if not n:
        return None
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
