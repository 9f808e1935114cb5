"""Charts: every specification is drawn by the engine that the page uses, and refers to nothing outside."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
import vl_convert

from tests.live import ROOT
from webapp.core import chartlanes, charts, livecharts
from webapp.core.histogram import Histogram
from webapp.core.loadsummary import bars, thinned

SERIES: list[dict[str, Any]] = [
    {"t_s": t, "backends": {slug: {"ttft_p50_ms": 10 + t, "ttft_p95_ms": 20 + t, "output_tokens_per_s": 5 * t,
                                 "running": t, "waiting": 2, "server": {"running": t, "waiting": 1} if t > 3 else None}
                            for slug in ("a", "b")}}
    for t in range(20)
]  # fmt: skip
BARS = {"a": [(1, 2, 5), (2, 4, 6)], "b": [(100, 200, 3)]}
POINTS = [
    {"backend": slug, "load": k, "interactivity": 100 / k, "throughput": 90 * k, "verdict": "valid"}
    for slug in ("a", "b")
    for k in (1, 2, 4)
]
STEPS = [
    {"backend": slug, "load": k, "attainment": 1 / k, "low": 0.9 / k, "high": 1.0, "limited": k == 2, "thin": False}
    for slug in ("a", "b")
    for k in (1, 2)
]
BOTH = chartlanes.lanes({"a": "2×H100 · Llama 70B", "b": "WSE-3 · Llama 70B"})
SPECS = {
    "percentiles": charts.percentiles_over_time(SERIES, BOTH),
    "rate": charts.rate_over_time(SERIES, BOTH),
    "requests": charts.requests_over_time(SERIES, BOTH),
    "server": charts.server_over_time(SERIES, BOTH) or {},
    "distribution": charts.distribution(BARS, "ttft", BOTH),
    "curve": charts.throughput_against_interactivity(POINTS, BOTH),
    "attainment": charts.attainment_over_load(STEPS, BOTH, 0.95),
    "empty": charts.percentiles_over_time([], []),
}


def urls(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for key, item in value.items() if key != "$schema" for found in urls(item)]
    if isinstance(value, list):
        return [found for item in value for found in urls(item)]
    return [value] if isinstance(value, str) and "://" in value else []


@pytest.mark.parametrize("name", SPECS)
def test_every_chart_is_drawn_and_refers_to_nothing(name: str) -> None:
    assert vl_convert.vegalite_to_svg(SPECS[name]).startswith("<svg")
    assert not urls(SPECS[name])


def test_a_server_that_tells_nothing_has_no_chart() -> None:
    assert charts.server_over_time([{"t_s": 1.0, "backends": {"a": {"running": 1, "server": None}}}], BOTH) is None


@pytest.mark.parametrize("name", livecharts.specs(["a", "b"]))
def test_live_charts_are_drawn_whatever_is_not_known_or_zero(name: str) -> None:
    """Chunks of one read have no gap between them, and a logarithmic axis has no zero."""
    fields = ("ttft_p50_ms", "ttft_p95_ms", "icl_p95_ms", "running", "waiting", "output_tokens_per_s", "errors_per_s")
    rows: list[dict[str, Any]] = [{"t": t, "backend": "a", **dict.fromkeys(fields, 20 + t)} for t in range(5)]
    rows += [{"t": t, "backend": "b", **dict.fromkeys(fields, 0)} for t in range(5)]
    rows += [{"t": 5, "backend": "b", **dict.fromkeys(fields)}]
    letters = [{**rows[3], "letter": "A"}, {**rows[7], "letter": "B"}]
    spec = {**livecharts.specs(["a", "b"])[name], "data": {"name": "live", "values": rows}, "width": 300}
    spec["datasets"] = {"letters": letters}
    drawn = vl_convert.vegalite_to_svg(spec)
    assert "NaN" not in drawn
    labels = re.findall(r">([\d.]+k?)(?: m?s)?</text>", drawn)
    assert len(labels) > 5, "both axes have labels"
    assert {"A", "B"} <= set(said(drawn)), "on the lines"
    assert not urls(spec)


def said(svg: str) -> list[str]:
    """Return the words in a drawing, as they stand."""
    return [unescape(text).strip() for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg)]


@pytest.mark.parametrize("name", [name for name in SPECS if name != "empty"])
def test_every_lane_has_its_letter_at_its_line_and_its_letter_and_label_in_the_legend(name: str) -> None:
    words = said(vl_convert.vegalite_to_svg(SPECS[name]))
    for lane in BOTH:
        assert lane.name.replace("  ", " ") in [" ".join(word.split()) for word in words]
        assert [word for word in words if re.fullmatch(rf"{lane.letter}( \d)?", word)], "on the line, or at its points"
    assert not {"a", "b"} & set(words), "slugs"


def test_letters_of_lines_that_end_together_stand_apart_and_before_the_end_of_what_is_not_zero() -> None:
    rows = [{"t": t, "backend": lane.name, "value": max(0, 40 - t)} for lane in BOTH for t in range(80)]
    found = {row["letter"]: row["t"] for row in chartlanes.lettered(rows, BOTH) if "letter" in row}
    assert found.keys() == {"A", "B"}
    assert 30 < found["B"] < found["A"] < 40
    rows = [{"t": t, "backend": lane.name, "value": 0} for lane in BOTH for t in range(80)]
    always = {row["letter"]: row["t"] for row in chartlanes.lettered(rows, BOTH) if "letter" in row}
    assert 60 < always["B"] < always["A"], "nothing but zero"


def test_charts_have_the_colours_and_patterns_of_the_pages_lanes() -> None:
    tokens = (ROOT / "static" / "css" / "tokens.css").read_text("utf-8")
    assert tuple(re.findall(r"--lane-\w-line: light-dark\((#\w+),", tokens)) == chartlanes.COLOURS
    dashes = re.findall(r"--lane-dash: ([\d ]+|none);", tokens)
    assert [dash if dash != "none" else "1 0" for dash in dashes] == [" ".join(map(str, d)) for d in chartlanes.DASHES]


def test_of_many_lanes_only_the_requests_that_wait_are_drawn() -> None:
    many = chartlanes.lanes(dict.fromkeys("abc", "x"))
    spec = charts.requests_over_time(SERIES, many)
    assert spec["title"]["text"] == "Requests that wait for their first token"
    assert {row["value"] for row in spec["data"]["values"]} == {2}
    queued = charts.server_over_time(SERIES, many)
    assert queued
    assert {row["value"] for row in queued["data"]["values"]} == {1}
    assert livecharts.specs(list("abc"))["requests"]["usermeta"]["fields"] == {"waiting": False}
    assert livecharts.specs(list("ab"))["requests"]["usermeta"]["fields"] == {"running": False, "waiting": True}


def dashed(layer: dict[str, Any]) -> bool:
    return bool(layer["mark"].get("strokeDash"))


def test_a_line_is_dashed_for_the_same_figure_while_a_run_goes_on_as_in_its_result() -> None:
    scale = SPECS["percentiles"]["layer"][0]["encoding"]["strokeDash"]["scale"]
    found = {name: dash[1] > 0 for name, dash in zip(scale["domain"], scale["range"], strict=True)}
    assert found == {"p50": False, "p95": True}
    page = (ROOT / "templates" / "load" / "_live.html").read_text("utf-8")
    for chart in ("ttft", "icl"):
        lines = [layer for layer in livecharts.specs(["a", "b"])[chart]["layer"] if layer["mark"]["type"] == "line"]
        live = {layer["encoding"]["y"]["field"].split("_")[1]: dashed(layer) for layer in lines}
        assert live == {name: found[name] for name in live}
        caption = re.search(rf"<figcaption((?!figcaption).)*</figcaption><div class=.chart. data-live=.{chart}", page)
        assert caption
        keys = re.findall(r'class="chart-key( dashed)?">(\w+)', caption[0])
        assert {name: bool(dash) for dash, name in keys} == live


def interpolations(spec: dict[str, Any]) -> set[str]:
    marks = [layer["mark"] for layer in spec.get("layer", [spec])]
    found = [mark if isinstance(mark, dict) else {"type": mark} for mark in marks]
    return {mark.get("interpolate", "linear") for mark in found if mark["type"] == "line"}


def test_no_line_is_smoothed_and_counts_are_stepped() -> None:
    every = SPECS | {f"live {name}": spec for name, spec in livecharts.specs(["a", "b"]).items()}
    stepped = {name for name, spec in every.items() if interpolations(spec) == {"step-after"}}
    assert stepped == {"requests", "server", "live requests"}
    assert all(interpolations(every[name]) == {"linear"} for name in every.keys() - stepped)


def test_a_distribution_keeps_its_count_in_few_bars() -> None:
    histogram = Histogram()
    histogram.record_all([k * 1_000_003 for k in range(5000)])
    found = bars(histogram)
    assert len(found) <= 80
    assert sum(count for _, _, count in found) == 5000
    assert all(low < high for low, high, _ in found)


def test_a_long_series_is_thinned_and_keeps_its_end() -> None:
    found = thinned([{"t": t} for t in range(10_001)])
    assert len(found) <= 300
    assert found[-1] == {"t": 10_000}
    assert thinned([]) == []
