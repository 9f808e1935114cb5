"""Charts as Vega-Lite specifications: plain dicts, drawn by the page and exported to SVG, PNG and PDF alike.

Each function takes the data that a result keeps (`loadsummary.chart_data`) and returns a specification without any
reference to the outside: no URL, no expression that needs eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from webapp.core.chartlanes import LETTER, Lane, colour, letter_layers, lettered, pattern
from webapp.core.generator import VALID

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
FIGURE_TITLES = {
    "ttft": "time to first token, ms",
    "tpot": "time per output token, ms",
    "icl": "inter-chunk latency, ms",
    "e2e": "whole answer, ms",
}
SHARES = {"icl": "share of gaps"}  # of what a distribution is, where not of requests
SERIES_TITLES = {
    "output_tokens_per_s": "output tokens per second",
    "requests_per_s": "answers per second",
    "errors_per_s": "errors per second",
}
DECADES = [10**power for power in range(-2, 7)]
STRAIGHT, STEP = "linear", "step-after"  # between two looks; nothing is drawn that nobody has measured
ANSWERS = {False: "measured", True: "not measurable"}
FEW_LANES = 2  # of which two lines each can still be followed
FEW_USERS = 10  # on an axis that short each number gets a tick, and nothing between two does
WIDTH, HEIGHT = 560, 220
Spec = dict[str, Any]


def percentiles_over_time(series: Sequence[Mapping[str, Any]], lanes: Sequence[Lane], figure: str = "ttft") -> Spec:
    """Return p50 (full) and p95 (dashed) of the last seconds over the run's time, one colour per backend."""
    fields = {name: f"{figure}_{name}_ms" for name in ("p50", "p95")}
    rows = _rows(series, lanes, lambda entry: {name: entry.get(field) for name, field in fields.items()})
    title = f"{FIGURE_TITLES[figure].capitalize()}, over the last ten seconds"
    return _two_lines(title, rows, tuple(fields), FIGURE_TITLES[figure], lanes)


def requests_over_time(series: Sequence[Mapping[str, Any]], lanes: Sequence[Lane]) -> Spec:
    """Return the requests under way: those that stream (full) and those that wait for their first token (dashed). Of
    more than a few lanes only those that wait, which is where load shows.
    """

    def figures(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"streaming": entry.get("running"), "waiting": entry.get("waiting")}

    return _counts(
        series, lanes, figures, ("Requests under way", "Requests that wait for their first token"), "waiting"
    )


def server_over_time(series: Sequence[Mapping[str, Any]], lanes: Sequence[Lane]) -> Spec | None:
    """Return what the servers said of themselves: requests running (full) and queued (dashed), of more than a few lanes
    only those queued; None where none did.
    """

    def figures(entry: Mapping[str, Any]) -> dict[str, Any]:
        server = entry.get("server") or {}
        return {"running": server.get("running"), "queued": server.get("waiting")}

    titles = ("Requests inside the server", "Requests queued inside the server")
    spec = _counts(series, lanes, figures, titles, "queued")
    return spec if spec["data"]["values"] else None


def rate_over_time(
    series: Sequence[Mapping[str, Any]], lanes: Sequence[Lane], name: str = "output_tokens_per_s"
) -> Spec:
    """Return one of SERIES_TITLES over the run's time."""
    rows = _rows(series, lanes, lambda entry: {"": entry.get(name)})
    title = SERIES_TITLES[name]
    return _one_line(title.capitalize(), rows, lanes, x=_time_axis(), y=_axis("value", title))


def distribution(bars: Mapping[str, Sequence[Sequence[float]]], figure: str, lanes: Sequence[Lane]) -> Spec:
    """Return how a figure is distributed, as cumulative share over a logarithmic axis.

    A cumulative curve needs no bins to be chosen, and its crossing of 0.95 is the percentile. Some `lanes` may have no
    `bars`.
    """
    rows = []
    for lane in lanes:
        found = bars.get(lane.slug, ())
        total, seen = sum(count for _, _, count in found), 0.0
        for low, high, count in found:
            rows.append({"ms": max(low, 1e-3), "share": seen / total, "backend": lane.name})
            seen += count
            rows.append({"ms": max(high, 1e-3), "share": seen / total, "backend": lane.name})
    return _one_line(
        f"Distribution of {FIGURE_TITLES[figure]}",
        rows,
        lanes,
        x=_axis("ms", FIGURE_TITLES[figure], scale={"type": "log", "nice": True}),
        y=_axis("share", SHARES.get(figure, "share of requests"), scale={"domain": [0, 1]}, axis={"format": "%"}),
    )


def throughput_against_interactivity(points: Iterable[Mapping[str, Any]], lanes: Sequence[Lane]) -> Spec:
    """Return the trade of a sweep: output tokens per second of all users against tokens per second of each, both on
    logarithmic axes, for machines differ by orders of magnitude.

    `points` hold `backend`, `load` (users or requests per second), `interactivity`, `throughput`, `verdict`; each is
    marked with its lane's letter and its load.
    """
    drawn, of = ("load", "interactivity", "throughput"), {lane.slug: lane for lane in lanes}
    rows = [
        {
            **{name: point[name] for name in drawn},
            "backend": of[point["backend"]].name,
            "mark": f"{of[point['backend']].letter} {point['load']:g}",
            "answer": ANSWERS[point["verdict"] != VALID],
        }
        for point in points
        if point["interactivity"] and point["throughput"]
    ]
    log = {"scale": {"type": "log", "nice": True}, "axis": {"format": "~s", "values": DECADES}}
    encoding = {
        "x": _axis("interactivity", "tokens/s of one user (1000 / TPOT p50)", **log),
        "y": _axis("throughput", "tokens/s of all users", **log),
        "color": colour(lanes),
    }
    order = {"order": {"field": "load", "type": "quantitative"}, "strokeDash": pattern(lanes)}
    return {
        **_frame("Throughput against interactivity", rows),
        "layer": [
            {"mark": "line", "encoding": {**encoding, **order}},
            _points(rows, encoding),
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "dy": -6, "fontSize": 10},
                "encoding": {**encoding, "text": {"field": "mark"}},
            },
        ],
    }


def attainment_over_load(points: Iterable[Mapping[str, Any]], lanes: Sequence[Lane], target: float) -> Spec:
    """Return the share of good requests over the number of users, with its interval and the target.

    `points` hold `backend`, `load`, `attainment`, `low`, `high`, `limited`, `thin`.
    """
    names = {lane.slug: lane.name for lane in lanes}
    rows = [
        {**point, "backend": names[point["backend"]], "answer": ANSWERS[point["limited"] or point.get("thin", False)]}
        for point in points
        if point["attainment"] is not None
    ]
    rows = lettered(sorted(rows, key=lambda row: row["load"]), lanes)
    most = max((row["load"] for row in rows), default=0)
    whole = {"values": list(range(most + 1)), "format": "d"} if most <= FEW_USERS else {}
    encoding = {
        "x": _axis("load", "users", axis={"tickMinStep": 1, **whole}),
        "y": _axis("attainment", "share of good answers", scale={"domain": [0, 1]}, axis={"format": "%"}),
        "color": colour(lanes),
    }
    measured = [{"filter": f"datum.answer == '{ANSWERS[False]}'"}]
    interval = {**encoding, "y": {**encoding["y"], "field": "low"}, "y2": {"field": "high"}}
    return {
        **_frame("How many users?", rows),
        "layer": [
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": interval},
            {"mark": "line", "encoding": {**encoding, "strokeDash": pattern(lanes)}, "transform": measured},
            _points(rows, encoding),
            {
                "mark": {"type": "text", "dy": -12, "fontSize": 11, "fontWeight": 700},
                "encoding": {**encoding, "text": {"field": "letter"}},
                "transform": [{"filter": "isValid(datum.letter)"}],
            },
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
    lanes: Sequence[Lane],
    figures: Callable[[Mapping[str, Any]], Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Return a row for each known one of the named figures of each backend at each time."""
    return [
        {"t": line["t_s"], "backend": lane.name, "value": value, "line": name}
        for line in series
        for lane in lanes
        for name, value in figures(line["backends"].get(lane.slug, {})).items()
        if value is not None
    ]


def _counts(
    series: Sequence[Mapping[str, Any]],
    lanes: Sequence[Lane],
    figures: Callable[[Mapping[str, Any]], Mapping[str, float | None]],
    titles: tuple[str, str],
    most_telling: str,
) -> Spec:
    """Return two counts per lane over time, the most telling one dashed; of more than FEW_LANES lanes that one alone,
    under the second title.
    """
    rows = _rows(series, lanes, figures)
    if len(lanes) > FEW_LANES:
        rows = [row for row in rows if row["line"] == most_telling]
        return _one_line(titles[1], rows, lanes, STEP, x=_time_axis(), y=_axis("value", "requests"))
    return _two_lines(titles[0], rows, tuple(figures({})), "requests", lanes, STEP)


def _two_lines(
    title: str,
    rows: Sequence[dict[str, Any]],
    names: tuple[str, ...],
    unit: str,
    lanes: Sequence[Lane],
    between: str = STRAIGHT,
) -> Spec:
    """Return two lines per lane over time, the first name's full and the second's dashed."""
    scale = {"domain": list(names), "range": [[1, 0], [4, 3]]}
    dash = {"field": "line", "type": "nominal", "scale": scale, "legend": {"title": None}}
    return _lines(title, rows, lanes, between, dash, x=_time_axis(), y=_axis("value", unit))


def _one_line(
    title: str, rows: Sequence[dict[str, Any]], lanes: Sequence[Lane], between: str = STRAIGHT, **axes: Any
) -> Spec:
    """Return one line per lane, in its pattern."""
    return _lines(title, rows, lanes, between, pattern(lanes), **axes)


def _lines(
    title: str,
    rows: Sequence[dict[str, Any]],
    lanes: Sequence[Lane],
    between: str,
    dash: Mapping[str, Any],
    **axes: Any,
) -> Spec:
    by_lane = colour(lanes)
    line = {"type": "line", "interpolate": between, "clip": True}
    return {
        **_frame(title, lettered(rows, lanes)),
        "encoding": axes,
        "layer": [{"mark": line, "encoding": {"color": by_lane, "strokeDash": dash}}, *letter_layers(by_lane)],
    }


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
            "style": {LETTER: {"color": "white"}},
            "axis": {"gridOpacity": 0.35, "domainOpacity": 0.4, "tickOpacity": 0.4, "titleFontWeight": 400},
        },
    }


def _axis(field: str, title: str, **more: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _time_axis() -> dict[str, Any]:
    return _axis("t", "seconds since the start")
