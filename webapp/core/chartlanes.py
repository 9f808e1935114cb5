"""Lanes in a chart: which letter, colour, pattern and name a backend has in it, and the letters on its lines.

Colour alone tells nobody apart who cannot see it, or a print in grey: each line carries its lane's letter, and where a
pattern means nothing else, its lane's pattern too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LETTERS = "ABCDEFGH"
# The page's lanes in its light theme (static/css/tokens.css, --lane-a-line and --lane-a-dash onwards): Okabe and Ito's
# colours (2008), moved until they stand 3:1 off white.
COLOURS = ("#2b8cc4", "#b87e00", "#008a64", "#bb5f92", "#d55e00", "#8f8600", "#0072b2", "#30363d")
DASHES = ((1, 0), (10, 4), (2, 3), (10, 3, 2, 3), (18, 4), (5, 5), (14, 3, 2, 3, 2, 3), (1, 5))
APART = 0.06  # of a line's length: lines that end together keep their letters apart
LETTER = "letter"  # the style of a letter's ground, which has the colour of what the chart stands on


@dataclass(frozen=True, slots=True)
class Lane:
    """A backend in a chart: its `slug` in the data, the letter on its lines, its label in the legend."""

    slug: str
    letter: str
    label: str

    @property
    def name(self) -> str:
        return f"{self.letter}  {self.label}"


def lanes(labels: Mapping[str, str]) -> list[Lane]:
    """Return the lanes of backends, {slug: label}, with letters in their order."""
    return [Lane(slug, LETTERS[k % len(LETTERS)], label) for k, (slug, label) in enumerate(labels.items())]


def colour(lanes: Sequence[Lane]) -> dict[str, Any]:
    """Return the encoding of lanes by colour, with a legend of letters and labels."""
    return _by_lane(lanes, COLOURS)


def pattern(lanes: Sequence[Lane]) -> dict[str, Any]:
    """Return the encoding of lanes by line pattern; its legend is that of the colours."""
    return _by_lane(lanes, DASHES)


def lettered(rows: Iterable[dict[str, Any]], lanes: Sequence[Lane]) -> list[dict[str, Any]]:
    """Return the rows, with its lane's `letter` in one row of each line towards its end, before it lies at zero for
    good. A line is a `backend`, and where there is one, a `line`.
    """
    found = list(rows)
    places = {lane.name: place for place, lane in enumerate(lanes)}
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        lines.setdefault((row["backend"], row.get("line", "")), []).append(row)
    for (name, _), line in lines.items():
        last = max((at for at, row in enumerate(line) if row.get("value") != 0), default=len(line) - 1)
        at = round(last * max(0.0, 1 - APART * (places[name] + 0.5)))
        line[at]["letter"] = lanes[places[name]].letter
    return found


def letter_layers(
    stroke: Mapping[str, Any], known: Sequence[Mapping[str, Any]] = (), **placed: Any
) -> list[dict[str, Any]]:
    """Return what draws the letters of rows that have one, as `lettered` gives it: `stroke` is the encoding of the
    lanes by colour, `placed` that of the lines where they do not share one, `known` what their rows pass through.
    """
    there = [*known, {"filter": "isValid(datum.letter)"}]
    ground = {"type": "point", "shape": "circle", "size": 150, "filled": True, "strokeWidth": 1.5, "opacity": 1}
    ring = {"stroke": {**stroke, "legend": None}}
    said = {"text": {"field": "letter"}}
    text = {"type": "text", "fontSize": 10, "fontWeight": 700, "baseline": "middle"}
    return [
        {"mark": {**ground, "style": LETTER}, "encoding": {**placed, **ring}, "transform": there},
        {"mark": text, "encoding": {**placed, **said}, "transform": there},
    ]


def _by_lane(lanes: Sequence[Lane], values: Sequence[Any]) -> dict[str, Any]:
    scale = {"domain": [lane.name for lane in lanes], "range": [values[k % len(values)] for k in range(len(lanes))]}
    # In one row four long labels are wider than the chart.
    legend = {"title": None, "orient": "bottom", "columns": 2, "columnPadding": 28}
    return {"field": "backend", "type": "nominal", "scale": scale, "legend": legend}
