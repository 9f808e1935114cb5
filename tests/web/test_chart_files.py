"""Charts as files: what the page draws comes out as SVG, PNG and PDF, through the view and from the command line."""

from __future__ import annotations

import re
import struct
from copy import deepcopy
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from django.core.management import call_command
from django.test import Client

from tests.web.load_runs import finished
from webapp.core.charts import HEIGHT, WIDTH
from webapp.core.generator import LIMITED
from webapp.models import LoadRun
from webapp.services import charts, loadcharts

KINDS = ("svg", "png", "pdf")
pytestmark = pytest.mark.usefixtures("rows")


def opened(kind: str, made: bytes) -> tuple[float, float, str]:
    """Open a chart as its reader does; return its width and height in CSS pixels and the words in it, if any."""
    if kind == "svg":
        root = ET.fromstring(made)
        return float(root.attrib["width"]), float(root.attrib["height"]), "".join(root.itertext())
    if kind == "png":
        assert made.startswith(b"\x89PNG\r\n\x1a\n")
        assert made.endswith(b"IEND\xaeB`\x82")
        width, height = struct.unpack(">II", made[16:24])
        return width / charts.PNG_SCALE, height / charts.PNG_SCALE, ""
    assert made.startswith(b"%PDF-1.")
    assert made.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", made)) == 1
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", made)
    assert box
    return float(box[1]), float(box[2]), ""


def unnumbered(svg: bytes) -> bytes:
    """Return an SVG without the numbers of its ids: the library counts them up from chart to chart."""
    return re.sub(rb'(id="|url\(#)([a-z]+)\d+', rb"\1\2", svg)


def is_whole(kind: str, made: bytes, spec: dict[str, Any]) -> None:
    width, height, words = opened(kind, made)
    assert WIDTH < width < 1.5 * WIDTH
    assert HEIGHT < height < 1.7 * HEIGHT
    if kind == "svg":
        for said in (spec["title"]["text"], spec["encoding"]["y"]["title"], "a"):
            assert said in words


def lines_under_titles(run: LoadRun) -> dict[str, list[str]]:
    return {name: spec["title"]["subtitle"] for name, spec in loadcharts.named(run.summary, run.charts).items()}


def limited(run: LoadRun, *slugs: str) -> LoadRun:
    """Have a run be the generator's own, on these backends."""
    run.summary["generator"]["reasons"] = ["It was late."]
    for slug in slugs:
        run.summary["backends"][slug]["generator"] |= {"verdict": LIMITED, "reasons": ["It was late."]}
    return run


def with_another(run: LoadRun) -> LoadRun:
    run.summary["backends"]["b"] = deepcopy(run.summary["backends"]["a"])
    run.summary["plan"]["targets"] = [*run.summary["plan"]["targets"], {"slug": "b", "label": "B", "badge": "LIVE"}]
    return run


def test_every_chart_of_a_generator_limited_run_says_that_its_times_are_not_the_servers() -> None:
    run = limited(finished(1000), "a")
    for lines in lines_under_titles(run).values():
        assert lines == ["generator-limited: not the server's times", "SIMULATED"]
    (svg, *_) = loadcharts.drawn(loadcharts.specs(run.summary, run.charts))
    assert "generator-limited: not the server's times" in unescape(svg)
    assert all("generator-limited" not in lines[0] for lines in lines_under_titles(finished(1000)).values())


def test_of_two_backends_the_one_on_which_the_generator_was_the_limit_is_named() -> None:
    for lines in lines_under_titles(limited(with_another(finished(1000)), "b")).values():
        assert lines[0] == "generator-limited: not the server's times: B"
    for lines in lines_under_titles(limited(with_another(finished(1000)), "a", "b")).values():
        assert lines[0] == "generator-limited: not the server's times"


def test_a_sweeps_curve_says_where_the_generator_was_the_limit_and_its_distributions_of_one_load_do_not() -> None:
    run = limited(finished(1000))
    point = {"backend": "a", "interactivity": 1.0, "throughput": 2.0}
    run.summary["sweep"] = [{**point, "load": 1, "verdict": LIMITED}, {**point, "load": 2, "verdict": "valid"}]
    run.summary["backends"]["a"]["generator"]["verdict"] = "valid"
    for name, lines in lines_under_titles(run).items():
        limits = [line for line in lines if line.startswith(LIMITED)]
        assert limits == (["generator-limited where crossed: not the server's times"] * ("distribution" not in name))


@pytest.mark.parametrize("ended", ["stopped", "interrupted"])
def test_every_chart_of_a_run_that_did_not_come_to_its_end_says_how_far_it_came(ended: str) -> None:
    run = finished(1000)
    run.summary |= {"ended": ended, "duration_s": 22.0}
    assert all(lines == [f"{ended} at 22 s of 30 s", "SIMULATED"] for lines in lines_under_titles(run).values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_is_exported_by_the_view_as_the_page_draws_it(kind: str) -> None:
    run = finished(1000)
    (address, *_) = re.findall(r'data-spec="([^"]+)"', Client().get(f"/load/{run.id}/").content.decode())
    spec = Client().get(address).json()
    reply = Client().get(address.replace(".json", f".{kind}"))
    assert reply["Content-Type"] == charts.FORMATS[kind]
    assert f".{kind}" in reply["Content-Disposition"]
    is_whole(kind, reply.content, spec)
    if kind == "svg":
        assert unnumbered(reply.content) == unnumbered(charts.made(spec, kind)), "the very same specification"


def test_all_charts_are_exported_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(1000)
    monkeypatch.setattr("webapp.management.commands.load.results", lambda _: (run.summary, run.charts, False))
    said = StringIO()
    call_command("load", "charts", "--out", str(tmp_path), stdout=said)
    named = loadcharts.named(run.summary, run.charts)
    assert len(named) >= 5
    assert [Path(line).name for line in said.getvalue().splitlines()] == [f"{n}.{k}" for n in named for k in KINDS]
    for name, spec in named.items():
        for kind in KINDS:
            is_whole(kind, (tmp_path / "charts" / f"{name}.{kind}").read_bytes(), spec)
