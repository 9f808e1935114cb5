"""Charts as Vega-Lite specifications: plain dicts, drawn by the page and exported to SVG, PNG and PDF alike.

Each function takes the data that a result keeps (`loadsummary.chart_data`) and returns a specification without any
reference to the outside: no URL, no expression that needs eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from webapp.core.generator import VALID

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
# Okabe and Ito's colours (2008), told apart with any kind of colour vision; black and yellow left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F4A00", "#5B5B5B")
FIGURE_TITLES = {
    "ttft": "time to first token, ms",
    "tpot": "time per output token, ms",
    "icl": "inter-chunk latency, ms",
    "e2e": "whole answer, ms",
}
SERIES_TITLES = {
    "output_tokens_per_s": "output tokens per second",
    "requests_per_s": "answers per second",
    "errors_per_s": "errors per second",
}
DECADES = [10**power for power in range(-2, 7)]
ANSWERS = {False: "measured", True: "not measurable"}
FEW_USERS = 10  # on an axis that short each number gets a tick, and nothing between two does
WIDTH, HEIGHT = 560, 220
Spec = dict[str, Any]


def percentiles_over_time(series: Sequence[Mapping[str, Any]], slugs: Sequence[str], figure: str = "ttft") -> Spec:
    """Return p50 (full) and p95 (dashed) of the last seconds over the run's time, one colour per backend."""
    fields = {name: f"{figure}_{name}_ms" for name in ("p50", "p95")}
    rows = _rows(series, slugs, lambda entry: {name: entry.get(field) for name, field in fields.items()})
    title = f"{FIGURE_TITLES[figure].capitalize()}, over the last ten seconds"
    return _two_lines(title, rows, tuple(fields), FIGURE_TITLES[figure], slugs)


def requests_over_time(series: Sequence[Mapping[str, Any]], slugs: Sequence[str]) -> Spec:
    """Return the requests under way: those that stream (full) and those that wait for their first token (dashed)."""
    names = ("streaming", "waiting")
    rows = _rows(series, slugs, lambda entry: {"streaming": entry.get("running"), "waiting": entry.get("waiting")})
    return _two_lines("Requests under way", rows, names, "requests", slugs, count=True)


def server_over_time(series: Sequence[Mapping[str, Any]], slugs: Sequence[str]) -> Spec | None:
    """Return what the servers said of themselves: requests running (full) and queued (dashed); None where none did."""
    names = ("running", "queued")

    def figures(entry: Mapping[str, Any]) -> dict[str, Any]:
        server = entry.get("server") or {}
        return {"running": server.get("running"), "queued": server.get("waiting")}

    rows = _rows(series, slugs, figures)
    return _two_lines("Requests inside the server", rows, names, "requests", slugs, count=True) if rows else None


def rate_over_time(
    series: Sequence[Mapping[str, Any]], slugs: Sequence[str], name: str = "output_tokens_per_s"
) -> Spec:
    """Return one of SERIES_TITLES over the run's time."""
    rows = [
        {"t": line["t_s"], "backend": slug, "value": line["backends"][slug].get(name)}
        for line in series
        for slug in slugs
        if slug in line["backends"]
    ]
    return _chart(
        SERIES_TITLES[name].capitalize(),
        rows,
        {"type": "line", "clip": True},
        x=_time_axis(),
        y=_axis("value", SERIES_TITLES[name]),
        color=_colour(slugs),
    )


def distribution(bars: Mapping[str, Sequence[Sequence[float]]], figure: str, slugs: Sequence[str] = ()) -> Spec:
    """Return how a figure is distributed, as cumulative share over a logarithmic axis.

    A cumulative curve needs no bins to be chosen, and its crossing of 0.95 is the percentile. `slugs` are all that have
    a colour, those without `bars` among them.
    """
    rows = []
    for slug, found in bars.items():
        total, seen = sum(count for _, _, count in found), 0.0
        for low, high, count in found:
            rows.append({"ms": max(low, 1e-3), "share": seen / total, "backend": slug})
            seen += count
            rows.append({"ms": max(high, 1e-3), "share": seen / total, "backend": slug})
    return _chart(
        f"Distribution of {FIGURE_TITLES[figure]}",
        rows,
        {"type": "line", "interpolate": "linear"},
        x=_axis("ms", FIGURE_TITLES[figure], scale={"type": "log", "nice": True}),
        y=_axis("share", "share of requests", scale={"domain": [0, 1]}, axis={"format": "%"}),
        color=_colour(slugs or list(bars)),
    )


def throughput_against_interactivity(points: Iterable[Mapping[str, Any]], slugs: Sequence[str]) -> Spec:
    """Return the trade of a sweep: output tokens per second of all users against tokens per second of each, both on
    logarithmic axes, for machines differ by orders of magnitude.

    `points` hold `backend`, `load` (users or requests per second), `interactivity`, `throughput`, `verdict`.
    """
    drawn = ("backend", "load", "interactivity", "throughput")
    rows = [
        {**{name: point[name] for name in drawn}, "answer": ANSWERS[point["verdict"] != VALID]}
        for point in points
        if point["interactivity"] and point["throughput"]
    ]
    log = {"scale": {"type": "log", "nice": True}, "axis": {"format": "~s", "values": DECADES}}
    encoding = {
        "x": _axis("interactivity", "tokens/s of one user (1000 / TPOT p50)", **log),
        "y": _axis("throughput", "tokens/s of all users", **log),
        "color": _colour(slugs),
    }
    label = {"text": {"field": "load", "type": "quantitative"}}
    return {
        **_frame("Throughput against interactivity", rows),
        "layer": [
            {"mark": "line", "encoding": {**encoding, "order": {"field": "load", "type": "quantitative"}}},
            _points(rows, encoding),
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "dy": -6, "fontSize": 10},
                "encoding": {**encoding, **label},
            },
        ],
    }


def attainment_over_load(points: Iterable[Mapping[str, Any]], slugs: Sequence[str], target: float) -> Spec:
    """Return the share of good requests over the number of users, with its interval and the target.

    `points` hold `backend`, `load`, `attainment`, `low`, `high`, `limited`, `thin`.
    """
    rows = [
        {**point, "answer": ANSWERS[point["limited"] or point.get("thin", False)]}
        for point in points
        if point["attainment"] is not None
    ]
    most = max((row["load"] for row in rows), default=0)
    whole = {"values": list(range(most + 1)), "format": "d"} if most <= FEW_USERS else {}
    encoding = {
        "x": _axis("load", "users", axis={"tickMinStep": 1, **whole}),
        "y": _axis("attainment", "share of good answers", scale={"domain": [0, 1]}, axis={"format": "%"}),
        "color": _colour(slugs),
    }
    interval = {**encoding, "y": {**encoding["y"], "field": "low"}, "y2": {"field": "high"}}
    return {
        **_frame("How many users?", rows),
        "layer": [
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": interval},
            {"mark": "line", "encoding": encoding, "transform": [{"filter": f"datum.answer == '{ANSWERS[False]}'"}]},
            _points(rows, encoding),
            {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"y": {"datum": target}}},
        ],
    }


def _points(rows: Sequence[Mapping[str, Any]], encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return dots, and crosses where a measurement says nothing; they are explained only where there are any."""
    unsure = any(row["answer"] == ANSWERS[True] for row in rows)
    legend = {"title": None, "orient": "bottom"} if unsure else None
    scale = {"domain": list(ANSWERS.values()), "range": ["circle", "cross"]}
    shape = {"field": "answer", "type": "nominal", "scale": scale, "legend": legend}
    return {"mark": {"type": "point", "filled": True, "size": 45}, "encoding": {**encoding, "shape": shape}}


def _rows(
    series: Sequence[Mapping[str, Any]],
    slugs: Sequence[str],
    figures: Callable[[Mapping[str, Any]], Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Return a row for each known one of the named figures of each backend at each time."""
    return [
        {"t": line["t_s"], "backend": slug, "value": value, "line": name}
        for line in series
        for slug in slugs
        for name, value in figures(line["backends"].get(slug, {})).items()
        if value is not None
    ]


def _two_lines(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    names: tuple[str, ...],
    unit: str,
    slugs: Sequence[str],
    *,
    count: bool = False,
) -> Spec:
    """Return two lines per backend over time, the first name's full and the second's dashed. Between two looks a line
    is straight, and a `count` stays what it was: nothing is drawn that nobody has measured.
    """
    scale = {"domain": list(names), "range": [[1, 0], [4, 3]]}
    return _chart(
        title,
        rows,
        {"type": "line", "interpolate": "step-after" if count else "linear", "clip": True},
        x=_time_axis(),
        y=_axis("value", unit),
        color=_colour(slugs),
        strokeDash={"field": "line", "type": "nominal", "scale": scale, "legend": {"title": None}},
    )


def _chart(title: str, rows: Sequence[Mapping[str, Any]], mark: Mapping[str, Any], **encoding: Any) -> Spec:
    return {**_frame(title, rows), "mark": dict(mark), "encoding": encoding}


def _frame(title: str, rows: Sequence[Mapping[str, Any]]) -> Spec:
    return {
        "$schema": SCHEMA,
        "title": {"text": title, "anchor": "start", "fontWeight": 600},
        "width": WIDTH,
        "height": HEIGHT,
        "background": None,
        "data": {"values": [dict(row) for row in rows]},
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {"gridOpacity": 0.35, "domainOpacity": 0.4, "tickOpacity": 0.4, "titleFontWeight": 400},
        },
    }


def _axis(field: str, title: str, **more: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _time_axis() -> dict[str, Any]:
    return _axis("t", "seconds since the start")


def _colour(slugs: Sequence[str]) -> dict[str, Any]:
    scale = {"domain": list(slugs), "range": [COLOURS[k % len(COLOURS)] for k in range(len(slugs))]}
    return {"field": "backend", "type": "nominal", "scale": scale, "legend": {"title": None, "orient": "bottom"}}
