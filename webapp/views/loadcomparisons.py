"""What the page that compares two load runs is given: what can be told, with intervals, and why it may not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.urls import reverse

from webapp.core import charts
from webapp.core.chartlanes import Lane
from webapp.core.generator import FLOOR_NS
from webapp.core.loadcompare import CANNOT_TELL, COMPARED, NO_DIFFERENCE, Difference, Measured, differences
from webapp.core.loadsummary import figures_at, load_words, name_at
from webapp.models import LoadRun
from webapp.services import charts as chart_files
from webapp.services import loadverdict
from webapp.views import loadcontexts as contexts
from webapp.views.loadwords import label_of, signed, time_words
from webapp.views.words import NA

CHARTS = (("ttft", "TTFT"), ("tpot", "TPOT"), ("icl", "Gaps between chunks"), ("e2e", "Whole answers"))


def compared(a: LoadRun, b: LoadRun) -> dict[str, Any]:
    """Return the context of `load/compare.html`: what can be told of the backends that two runs share, or of the two
    only ones."""
    why_not = _why_not(a, b)
    entries = _entries(a, b, measurable=not why_not)
    unlike = _unlike(a, b)
    return {
        "heads": [("A", contexts.row(a)), ("B", contexts.row(b))], "doubts": [*_doubts(a, b), *unlike],
        "entries": entries, "vega": chart_files.bundle_name(),
        "sentence": why_not if entries and why_not else _sentence(entries, alike=not unlike),
        "charts": [
            {"title": title, "url": reverse("load-compare-chart", args=[a.id, b.id, figure])}
            for figure, title in CHARTS
        ],
    }  # fmt: skip


def _pairs(a: LoadRun, b: LoadRun) -> list[tuple[str, str]]:
    in_a, in_b = list(a.summary.get("backends", {})), list(b.summary.get("backends", {}))
    shared = [(slug, slug) for slug in in_a if slug in in_b]
    return shared or ([(in_a[0], in_b[0])] if len(in_a) == len(in_b) == 1 else [])


def overlaid(a: LoadRun, b: LoadRun, figure: str) -> charts.Spec:
    """Return one distribution chart of what is compared; a line's letter is its run's, with a number where there are
    several backends.
    """
    pairs = _pairs(a, b)
    lanes, found = [], {}
    for place, slugs in enumerate(pairs, 1):
        for name, run, slug in zip("AB", (a, b), slugs, strict=True):
            lane = Lane(f"{name}: {slug}", f"{name}{place if len(pairs) > 1 else ''}", label_of(run, slug))
            lanes.append(lane)
            if bars := run.charts.get("distribution", {}).get(slug, {}).get(figure):
                found[lane.slug] = bars
    return charts.distribution(found, figure, lanes)


def _entries(a: LoadRun, b: LoadRun, *, measurable: bool) -> list[dict[str, Any]]:
    """Return a table for each pair of backends; of runs that are not `measurable` the figures alone, nothing told."""
    pairs = _pairs(a, b)
    measured = [(_measured(a, slug_a), _measured(b, slug_b)) for slug_a, slug_b in pairs]
    labels = {figure: label for figure, label, _ in contexts.FIGURES}
    entries = []
    for slugs, found in zip(pairs, differences(measured), strict=True):
        rows = [
            {"label": f"{labels[figure]} p{percent}", **_told(one if measurable else replace(one, result=CANNOT_TELL))}
            for (figure, percent), one in zip(COMPARED, found, strict=True)
        ]
        names = [name_at(slug, figures_at(run.summary).get(slug, "")) for run, slug in zip((a, b), slugs, strict=True)]
        entries.append({"slug": " against ".join(dict.fromkeys(names)), "rows": rows})
    return entries


def _measured(run: LoadRun, slug: str) -> Measured:
    return Measured(run.charts.get("distribution", {}).get(slug, {}), _late_ms(run, slug))


def _late_ms(run: LoadRun, slug: str) -> float:
    """Return by how many ms a simulated backend was behind its own schedule at most, 0 where that raises no doubt."""
    server = run.summary.get("backends", {}).get(slug, {}).get("server") or {}
    late_ms: float = server.get("most_late_ms") or 0.0
    return late_ms if late_ms > FLOOR_NS / 1e6 else 0.0


def _told(found: Difference) -> dict[str, Any]:
    interval = NA
    if found.low_ms is not None and found.high_ms is not None:
        interval = f"{signed(found.low_ms)} to {signed(found.high_ms)}"
    words = {CANNOT_TELL: CANNOT_TELL, NO_DIFFERENCE: NO_DIFFERENCE, "A less": "A is faster", "B less": "B is faster"}
    return {
        "a": time_words(found.a.ms if found.a else None), "b": time_words(found.b.ms if found.b else None),
        "difference": NA if found.ms is None else signed(found.ms), "interval": interval,
        "result": words[found.result], "told": found.result not in (CANNOT_TELL, NO_DIFFERENCE),
    }  # fmt: skip


def _limited(run: LoadRun) -> bool:
    """Whether the generator was the limit, and not the server."""
    return bool(run.summary.get("generator", {}).get("reasons"))


def _why_not(a: LoadRun, b: LoadRun) -> str:
    """Say why nothing can be told of two runs, whatever their figures are; "" where something may be."""
    if _limited(a) or _limited(b):
        return "Cannot tell: a load generator was the limit, not the server."
    found = [name for name, run in (("A", a), ("B", b)) if run.exit_code == loadverdict.NOT_MEASURABLE]
    if not found:
        return ""
    return f"Cannot tell: {'neither run is' if len(found) > 1 else f'run {found[0]} is not'} measurable."


def _doubts(a: LoadRun, b: LoadRun) -> list[str]:
    """Return what is wrong with one of the two runs, each as one sentence."""
    found = []
    for name, run in (("A", a), ("B", b)):
        if _limited(run):
            found.append(f"In run {name} the generator itself was the limit: its figures are not the server's.")
        if late_ms := max((_late_ms(run, slug) for slug in run.summary.get("backends", ())), default=0.0):
            found.append(
                f"In run {name} a simulator's host was late by up to {late_ms:.0f} ms; its times may be too large."
            )
        if run.state != LoadRun.State.DONE:
            found.append(f"Run {name} did not run to its end ({run.state}).")
    return found


def _unlike(a: LoadRun, b: LoadRun) -> list[str]:
    """Return in what the two runs differ that should be alike, each as one sentence."""
    words = (_load(a), _load(b))
    mixes = (a.plan.get("mix"), b.plan.get("mix"))
    return [
        f"The {what} differs: {one} in A, {two} in B."
        for what, (one, two) in (("load", words), ("mix", mixes), ("wire", (a.wire, b.wire)))
        if one != two
    ]


def _load(run: LoadRun) -> str:
    """Say at which load the figures were measured that are compared: of a series those of one, which may not be all."""
    at = figures_at(run.summary) if run.summary else {}
    return ", ".join(dict.fromkeys(at.values())) or load_words(run.plan)


def _sentence(entries: Sequence[Mapping[str, Any]], *, alike: bool) -> str:
    if not entries:
        return "Cannot tell: the two runs have no backend in common."
    rows = [row for entry in entries for row in entry["rows"]]
    results = {row["result"] for row in rows if row["told"]}
    told = [f"{row['label']} {row['a']} against {row['b']}" for row in rows if row["told"]]
    unlike = "" if alike else ", but the runs differ"
    for name in ("A", "B"):
        if results == {f"{name} is faster"}:
            return f"Run {name} was faster{unlike}: {told[0]}."
    if results:
        return f"Each is faster somewhere: {'; '.join(told[:3])}."
    if all(row["result"] == NO_DIFFERENCE for row in rows):
        return "No difference."
    return "Cannot tell: the intervals of both runs overlap."
