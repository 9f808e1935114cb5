"""What the page that compares two load runs is given: what can be told, with intervals, and why it may not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import reverse

from webapp.core.loadcompare import CANNOT_TELL, NO_DIFFERENCE, Difference, difference
from webapp.core.loadsummary import figures_at, load_words, name_at
from webapp.models import LoadRun
from webapp.services import charts as chart_files
from webapp.views import loadcontexts as contexts
from webapp.views.loadwords import signed, time_words
from webapp.views.words import NA

COMPARED = (("ttft", 50), ("ttft", 95), ("icl", 95), ("e2e", 50))


def compared(a: LoadRun, b: LoadRun) -> dict[str, Any]:
    """Return the context of `load/compare.html`: what can be told of the backends that two runs share, or of the two
    only ones."""
    pairs = _pairs(a, b)
    entries = [_entry(a, b, slug_a, slug_b) for slug_a, slug_b in pairs]
    unlike = _unlike(a, b)
    return {
        "heads": [("A", contexts.row(a)), ("B", contexts.row(b))], "doubts": [*_doubts(a, b), *unlike],
        "entries": entries, "vega": chart_files.bundle_name(),
        "sentence": _sentence(entries, limited=_limited(a) or _limited(b), alike=not unlike),
        "charts": [
            {"title": title, "url": reverse("load-compare-chart", args=[a.id, b.id, figure])}
            for figure, title in (("ttft", "TTFT"), ("icl", "Gaps between chunks"), ("e2e", "Whole answers"))
        ],
    }  # fmt: skip


def _pairs(a: LoadRun, b: LoadRun) -> list[tuple[str, str]]:
    in_a, in_b = list(a.summary.get("backends", {})), list(b.summary.get("backends", {}))
    shared = [(slug, slug) for slug in in_a if slug in in_b]
    return shared or ([(in_a[0], in_b[0])] if len(in_a) == len(in_b) == 1 else [])


def overlaid(a: LoadRun, b: LoadRun, figure: str) -> dict[str, list[list[float]]]:
    """Return the bars of what is compared for one distribution chart, named by run and backend."""
    found = {}
    for slugs in _pairs(a, b):
        for name, run, slug in zip("AB", (a, b), slugs, strict=True):
            if bars := run.charts.get("distribution", {}).get(slug, {}).get(figure):
                found[f"{name}: {slug}"] = bars
    return found


def _entry(a: LoadRun, b: LoadRun, slug_a: str, slug_b: str) -> dict[str, Any]:
    bars_a, bars_b = (run.charts.get("distribution", {}).get(slug, {}) for run, slug in ((a, slug_a), (b, slug_b)))
    labels = {figure: label for figure, label, _ in contexts.FIGURES}
    rows = []
    for figure, percent in COMPARED:
        found = difference(bars_a.get(figure, ()), bars_b.get(figure, ()), percent)
        rows.append({"label": f"{labels[figure]} p{percent}", **_told(found)})
    names = [name_at(slug, figures_at(run.summary).get(slug, "")) for run, slug in ((a, slug_a), (b, slug_b))]
    return {"slug": " against ".join(dict.fromkeys(names)), "rows": rows}


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


def _doubts(a: LoadRun, b: LoadRun) -> list[str]:
    """Return what is wrong with one of the two runs, each as one sentence."""
    found = []
    for name, run in (("A", a), ("B", b)):
        if _limited(run):
            found.append(f"In run {name} the generator itself was the limit: its figures are not the server's.")
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


def _sentence(entries: Sequence[Mapping[str, Any]], *, limited: bool, alike: bool) -> str:
    if not entries:
        return "Cannot tell: the two runs have no backend in common."
    if limited:
        return "Cannot tell: a load generator was the limit, not the server."
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
