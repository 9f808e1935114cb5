"""The four charts of a load run while it goes on, as Vega-Lite specifications without data; the page adds the rows.

A row is one backend at one moment: `t` seconds from the start, `backend`, and the fields named below (null: unknown).
`letters` is a second table: of each backend one of those rows, with its `letter`.
Titles and legends are the page's own, in HTML, where they can be read aloud and keep still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from webapp.core.chartlanes import letter_layers
from webapp.core.charts import DECADES, FEW_LANES, SCHEMA, Spec

HEIGHT = 120
LABELS_PX = 46
DASHED = ("ttft_p95_ms", "icl_p95_ms", "waiting")  # as a result's charts and the files made of them have it
COUNTS = ("running", "waiting")
SECONDS = "datum.value + ' s'"
TIMES = "datum.value >= 1000 ? datum.value / 1000 + ' s' : datum.value + ' ms'"


def specs(slugs: Sequence[str]) -> dict[str, Spec]:
    """Return the charts by name; colours are the page's, one per backend in the order of `slugs`."""
    return {
        "ttft": _lines(slugs, ("ttft_p50_ms", "ttft_p95_ms"), time=True),
        "icl": _lines(slugs, ("icl_p95_ms",), time=True),
        "requests": _lines(slugs, ("running", "waiting"))
        if len(slugs) <= FEW_LANES
        else _lines(slugs, ("waiting",), dashed=()),
        "output": _lines(slugs, ("output_tokens_per_s",), more=[_errors(slugs)]),
    }


def _lines(
    slugs: Sequence[str],
    fields: Sequence[str],
    time: bool = False,
    more: Sequence[dict[str, Any]] = (),
    dashed: Sequence[str] = DASHED,
) -> Spec:
    """Return one line per backend and field, its letter on it. `usermeta` tells the page the fields that are drawn, and
    whether dashed, for the keys above.
    """
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": HEIGHT,
        "background": None,
        "data": {"name": "live"},
        "usermeta": {"fields": {field: field in dashed for field in fields}},
        "layer": [
            *(_line(slugs, field, _y(field, time), field in dashed) for field in fields),
            *more,
            *(layer for field in fields for layer in _letters(slugs, field, _y(field, time))),
        ],
    }


def _line(slugs: Sequence[str], field: str, y: dict[str, Any], dashed: bool) -> dict[str, Any]:
    dash = {"strokeDash": [3, 3], "strokeWidth": 1.5} if dashed else {"strokeWidth": 2}
    kind = {"type": "line", "interpolate": "step-after" if field in COUNTS else "linear", "clip": True}
    return {
        "mark": {**kind, **dash},
        "encoding": {"x": _x(), "y": y, "color": _colour(slugs)},
        "transform": _known(field, y),
    }


def _letters(slugs: Sequence[str], field: str, y: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what draws the lanes' letters on their lines."""
    layers = letter_layers(_colour(slugs), _known(field, y), x=_x(), y=y)
    return [{**layer, "data": {"name": "letters"}} for layer in layers]


def _known(field: str, y: dict[str, Any]) -> list[dict[str, Any]]:
    # A line has no place for what is not known, and a logarithmic axis none for the zero between chunks of one read.
    known: list[dict[str, Any]] = [{"filter": f"isValid(datum.{field})"}]
    if y["scale"]["type"] == "log":
        known.append({"calculate": f"max(datum.{field}, {DECADES[0]})", "as": field})
    return known


def _errors(slugs: Sequence[str]) -> dict[str, Any]:
    """Return a cross at the foot of the chart wherever requests failed."""
    return {
        "mark": {"type": "point", "shape": "cross", "size": 40, "filled": True, "angle": 45},
        "encoding": {"x": _x(), "y": {"value": HEIGHT - 5}, "color": _colour(slugs)},
        "transform": [{"filter": "datum.errors_per_s > 0"}],
    }


def _x() -> dict[str, Any]:
    axis = {"title": None, "labelExpr": SECONDS, "tickCount": 4, "grid": False, "minExtent": 18}
    return {"field": "t", "type": "quantitative", "scale": {"zero": False, "nice": False}, "axis": axis}


def _y(field: str, time: bool = False) -> dict[str, Any]:
    # Fixed extents: the plot keeps its place whatever its labels grow to.
    axis: dict[str, Any] = {"title": None, "tickCount": 4, "minExtent": LABELS_PX, "maxExtent": LABELS_PX}
    if time:
        axis |= {"labelExpr": TIMES, "values": DECADES}
    else:
        axis |= {"format": "~s"}
    scale = {"type": "log", "nice": True} if time else {"type": "linear", "zero": True, "nice": True}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def _colour(slugs: Sequence[str]) -> dict[str, Any]:
    return {"field": "backend", "type": "nominal", "scale": {"domain": list(slugs)}, "legend": None}
