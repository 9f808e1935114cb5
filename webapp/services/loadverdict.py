"""What a load run has found, in sentences: its verdict, or why there is none, and what a search, sweep or pair says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from webapp.core.loadstats import wanted
from webapp.core.loadsummary import COMPLETE, INTERRUPTED, blocks, number, step_words
from webapp.core.slo import parse
from webapp.core.stats import ENOUGH_FOR
from webapp.services.loadcharts import is_series, lanes_of

NOT_MEASURABLE = 4  # exit code
VERDICTS = {
    0: "Pass.",
    1: "There were errors in this run.",
    3: "The SLO was missed.",
}


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return what a result says, in words: the answers to what was asked, the verdict, what the generator missed."""
    said = [] if summary.get("search") else [verdict(summary)]
    return [*answers(summary), *said, *summary["generator"]["reasons"]]


def verdict(summary: Mapping[str, Any]) -> str:
    """Return what the exit code says, in words."""
    series = is_series(summary)
    if series and summary["ended"] != COMPLETE and not summary["generator"]["reasons"]:
        return "Cut short: these are the runs that had been made."
    if cut := summary.get("cut_short"):  # stopped from the command line
        return cut if summary["exit_code"] == NOT_MEASURABLE else f"{cut} {VERDICTS.get(summary['exit_code'], '')}"
    if summary["exit_code"] == NOT_MEASURABLE:
        return f"Not measurable: {_why_not(summary)}"
    return VERDICTS.get(summary["exit_code"], "")


def _why_not(summary: Mapping[str, Any]) -> str:
    """Say why a result is not measurable."""
    if not is_series(summary) and summary["ended"] == INTERRUPTED:
        return "the load generator was ended before its time. What had been measured is kept."
    if summary["generator"]["reasons"]:
        return "the generator itself was the limit."
    if not summary["slo"]:
        return f"too few samples, {_fewest(summary, 'ok', 'answer')} where a median wants {ENOUGH_FOR[50]}."
    slo = parse(summary["slo"]["text"])
    few = _fewest(summary, "asked", "request")
    return f"too few samples, {few} where an SLO for {slo.target:.0%} wants {wanted(slo)}."


def _fewest(summary: Mapping[str, Any], count: str, what: str) -> str:
    """Say of how many there are fewest, and of which backend where there are several."""
    lanes = {lane.slug: lane for lane in lanes_of(summary)}
    n, slug = min((block["requests"][count], slug) for slug, _, block in blocks(summary))
    whose = f" of {lanes[slug].letter}" if len(lanes) > 1 and slug in lanes else ""
    return _count(n, what) + whose


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def answers(summary: Mapping[str, Any], *, brief: bool = False) -> list[str]:
    """Return what a search, a sweep or a paired comparison has found; `brief` where the figures stand beside it."""
    found = [entry["sentence"] for entry in summary.get("search", {}).values()]
    points = summary.get("sweep", [])
    mode = summary["plan"]["mode"]
    for slug in dict.fromkeys(point["backend"] for point in points):
        found.append(sweep_sentence(slug, mode, [point for point in points if point["backend"] == slug]))
    return found + [pair_sentence(pair, brief=brief) for pair in summary.get("pairs", []) if pair["figure"] != "tpot"]


def sweep_sentence(slug: str, mode: str, points: Sequence[Mapping[str, Any]]) -> str:
    """Say what more load did to all users together, and to each of them."""
    first, last = points[0], points[-1]
    every, each = (
        " to ".join(dict.fromkeys(number(point[name]) for point in (first, last)))
        for name in ("throughput", "interactivity")
    )
    loads = ("" if first is last else f"{first['load']:g} to ") + step_words(mode, last["load"])
    return f"{slug}, {loads}: {every} tokens/s for all users together, {each} for each of them."


def pair_sentence(pair: Mapping[str, Any], *, brief: bool = False) -> str:
    """Say what a paired comparison found about one figure."""
    name = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "Whole answer"}[pair["figure"]]
    a, b = pair["a"], pair["b"]
    if pair["result"] == "cannot tell":
        return f"{name}: cannot tell {a} from {b} with {pair['n']} pairs."
    low, high = pair["interval_ms"]
    detail = (
        f" (median difference {pair['difference_ms']:+.1f} ms, 99 % interval {low:+.1f} to {high:+.1f} ms, "
        f"{a} first in {pair['p_a_faster']:.0%} of {pair['n']} pairs)"
    )
    if brief:
        detail = ""
    if pair["result"] == "no difference":
        return f"{name}: no difference between {a} and {b}{detail}."
    faster, slower = (a, b) if pair["result"] == "A faster" else (b, a)
    return f"{name}: {faster} is faster{detail or f' than {slower}'}."
