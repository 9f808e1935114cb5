"""The charts of a result, from what its summary and its charts.json hold: for the page, the report and files alike.

Each carries what it must not pass for, and its backends' badges: it may be all that somebody sees of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import vl_convert

from webapp.core import chartlanes, charts
from webapp.core.chartlanes import Lane
from webapp.core.generator import LIMITED, VALID
from webapp.core.loadsummary import COMPLETE, figures_at

NAME_WORDS = 6
NOT_THE_SERVERS = "not the server's times"


def specs(summary: Mapping[str, Any], chart_data: Mapping[str, Any]) -> list[charts.Spec]:
    """Return the charts of a result, those of a sweep or a search first, each with what it must not pass for and its
    backends' badges. Of several loads a distribution is of one: which it is stands beside the badges, and alone under
    `usermeta`.
    """
    lanes = lanes_of(summary)
    found = []
    if points := summary.get("sweep"):
        found.append(charts.throughput_against_interactivity(points, lanes))
    if search := summary.get("search"):
        steps = [step for entry in search.values() for step in entry["steps"]]
        found.append(charts.attainment_over_load(steps, lanes, summary["slo"]["target"]))
    series, distribution = chart_data.get("series", []), chart_data.get("distribution", {})
    if len(series) > 1:
        found += [
            charts.percentiles_over_time(series, lanes),
            charts.percentiles_over_time(series, lanes, "icl"),
            charts.rate_over_time(series, lanes),
            charts.requests_over_time(series, lanes),
        ]
        if inside := charts.server_over_time(series, lanes):
            found.append(inside)
    letters = {lane.slug: lane.letter for lane in lanes}
    badges = _named({letters[target["slug"]]: target["badge"] for target in summary["plan"]["targets"]})
    at = _named({letters[slug]: f"at {load}" for slug, load in figures_at(summary).items()})
    spread = []
    for figure in ("ttft", "tpot", "e2e"):
        bars = {slug: entry[figure] for slug, entry in distribution.items() if entry.get(figure)}
        if bars:
            spread.append(charts.distribution(bars, figure, lanes) | {"usermeta": {"at": ", ".join(at)}})
    cut = _cut(summary)
    over, of_one = [*_limited(summary), *cut, *badges], [*_limited_each(summary), *cut, *badges, *at]
    for spec, lines in (*((spec, over) for spec in found), *((spec, of_one) for spec in spread)):
        spec["title"] |= {"subtitle": lines, "subtitleFontSize": 11, "subtitlePadding": 4}
    return [spec for spec in found + spread if spec["data"]["values"]]


def lanes_of(summary: Mapping[str, Any]) -> list[Lane]:
    """Return a result's backends as its charts have them, with the page's letters."""
    return chartlanes.lanes({each["slug"]: each.get("label") or each["slug"] for each in summary["plan"]["targets"]})


def _limited(summary: Mapping[str, Any]) -> list[str]:
    """Return the line by which charts over time or over loads do not pass for the server's own, where they are not."""
    if not is_series(summary):
        return _limited_each(summary)
    steps = [step for entry in summary.get("search", {}).values() for step in entry["steps"]]
    crossed = any(step["limited"] for step in steps) or any(
        point["verdict"] != VALID for point in summary.get("sweep", ())
    )
    return [f"{LIMITED} where crossed: {NOT_THE_SERVERS}"] if crossed else []


def _limited_each(summary: Mapping[str, Any]) -> list[str]:
    """Return the line by which charts of each backend's own figures do not pass for the server's."""
    if not summary["generator"]["reasons"]:
        return []
    blocks = summary["backends"]
    own = {lane.letter: blocks.get(lane.slug, {}).get("generator", {}).get("verdict") for lane in lanes_of(summary)}
    said = {letter: f"{LIMITED}: {NOT_THE_SERVERS}" if verdict == LIMITED else "" for letter, verdict in own.items()}
    of_all = [] if is_series(summary) else [f"{LIMITED}: {NOT_THE_SERVERS}"]  # as an earlier version kept it
    return _named(said) or of_all


def _cut(summary: Mapping[str, Any]) -> list[str]:
    """Return the line that says of a run's charts that it did not come to its end."""
    if summary["ended"] == COMPLETE:
        return []
    if is_series(summary):
        return [f"{summary['ended']}: not all of its runs were made"]
    return [f"{summary['ended']} at {summary['duration_s']:.0f} s of {summary['plan']['duration_s']:.0f} s"]


def is_series(summary: Mapping[str, Any]) -> bool:
    return "search" in summary or "sweep" in summary


def _named(said: Mapping[str, str]) -> list[str]:
    """Return what is said of each lane as lines: once where it is the same of all, else with their letters."""
    letters: dict[str, list[str]] = {}
    for letter, words in said.items():
        letters.setdefault(words, []).append(letter)
    if len(letters) < 2:
        return [words for words in letters if words]
    return [f"{words}: {', '.join(found)}" for words, found in letters.items() if words]


def named(summary: Mapping[str, Any], chart_data: Mapping[str, Any]) -> dict[str, charts.Spec]:
    """Return the charts of a result by a short name, as files and addresses have it."""
    found: dict[str, charts.Spec] = {}
    for spec in specs(summary, chart_data):
        name = "-".join(re.findall(r"[a-z0-9]+", spec["title"]["text"].lower())[:NAME_WORDS])
        found[name if name not in found else f"{name}-{len(found)}"] = spec
    return found


def drawn(found: Iterable[charts.Spec]) -> list[str]:
    """Return charts as SVG texts."""
    return [vl_convert.vegalite_to_svg(spec) for spec in found]
