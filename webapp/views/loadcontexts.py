"""What the templates of load runs are given: lists, results, live runs. Works from rows alone, never from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.urls import reverse

from webapp.core.charts import Spec
from webapp.core.loadplan import CAPS, SERIES
from webapp.core.loadsummary import COMPLETE, blocks, rates, span
from webapp.core.stats import ENOUGH_FOR
from webapp.models import LoadRun
from webapp.services import charts as chart_files
from webapp.services import loadcharts, loadreport, loadverdict
from webapp.views import loadprogress
from webapp.views.loadwords import TITLES, kind_of, steers, targets, time_words, title_of, words
from webapp.views.words import count_text

PERCENTS = tuple(ENOUGH_FOR)
FIGURES = (
    ("ttft", "TTFT", "ttft"),
    ("ttfo", "TTFO", "ttfo"),
    ("tpot", "TPOT", "tpot"),
    ("icl", "Gap", "icl_p50"),
    ("e2e", "Whole answer", "e2e"),
)  # in a summary, in words, and in the definitions
WIRES = {"sse": "the machine wire (/v1)", "ws": "the page's socket", "direct": "the backends' own URLs"}
GROWING = "growing"  # the name of the chart of a search or a sweep that goes on
LEAST_MOST_RATE = 20.0  # requests per second: how far up a slider goes at least
VERDICT_LEVELS = {0: "good", 1: "bad", 3: "bad", 4: "unknown"}


def live(run: LoadRun) -> dict[str, Any]:
    """Return what a page needs to follow a run, and to steer it."""
    rate = rates(run.plan)[-1]
    return {
        "id": run.id,
        "running": run.state == LoadRun.State.RUNNING,
        "state": run.state,
        "kind": kind_of(run),
        "note": run.note,
        "users": run.plan.get("users", 0),
        "steers": steers(run),
        "most_users": CAPS.users // max(1, len(run.backends)),
        "rate": rate,
        "most_rate": min(CAPS.rate / max(1, len(run.backends)), max(LEAST_MOST_RATE, 5 * rate)),
        "backends": targets(run),
        "url": reverse("load-run", args=[run.id]),
        "live_url": reverse("load-live", args=[run.id]),
        "charts_url": reverse("load-live-charts", args=[run.id]),
        "growing": {"title": TITLES[kind_of(run)], "url": reverse("load-chart", args=[run.id, GROWING, "json"])}
        if kind_of(run) in SERIES
        else None,
        "progress_url": reverse("load-progress", args=[run.id]),
        "steer_url": reverse("load-steer", args=[run.id]),
        "stop_url": reverse("load-stop", args=[run.id]),
        "words": words(run),
    }


def row(run: LoadRun) -> dict[str, Any]:
    """Return one line of the list."""
    blocks = run.summary.get("backends", {})
    return {
        "id": run.id,
        "url": reverse("load-run", args=[run.id]),
        "title": title_of(run),
        "when": run.created_at,
        "words": words(run),
        "mix": run.plan.get("mix", ""),
        "duration": f"{_seconds(run)}{' each' if kind_of(run) in SERIES else ''}",
        "state": run.state,
        "note": run.note,
        "verdict": _in_brief(run) if run.exit_code is not None and run.summary else "",
        "level": VERDICT_LEVELS.get(run.exit_code if run.exit_code is not None else -1, ""),
        "running": run.state == LoadRun.State.RUNNING,
        "backends": [
            {**target, "ttft": time_words(blocks.get(target["slug"], {}).get("ttft_ms", {}).get("p95")),
             "rate": count_text(blocks.get(target["slug"], {}).get("output_tokens_per_s")),
             "failed": blocks.get(target["slug"], {}).get("requests", {}).get("failed", 0)}
            for target in targets(run)
        ],
    }  # fmt: skip


def result(run: LoadRun) -> dict[str, Any]:
    """Return the context of `load/run.html`."""
    summary = run.summary
    found = {
        **live(run),
        "title": title_of(run),
        "when": run.created_at,
        "exit_code": run.exit_code,
        "facts": _facts(run),
        "delete_url": reverse("load-delete", args=[run.id]),
        "again_url": reverse("load") + f"?again={run.id}",
        "vega": chart_files.bundle_name(),
        "sentences": [],
        "reasons": [],
        "level": "",
        "tables": [],
        "charts": [],
        "errors": [],
        "files": [],
    }
    if not summary or found["running"]:
        return found
    named = charts(run)
    return {
        **found,
        "level": VERDICT_LEVELS.get(run.exit_code if run.exit_code is not None else -1, ""),
        "sentences": _sentences(summary),
        "reasons": summary["generator"]["reasons"],
        "tables": _tables(run),
        "charts": [_chart(run, name, spec) for name, spec in named.items()],
        "errors": _errors(run),
        "generator": _generator(summary),
        "settings": loadreport.settings_of(run.plan),
        "versions": sorted(summary.get("versions", {}).items()),
        "files": [
            {"name": name, "url": reverse("load-file", args=[run.id, name])}
            for name in ("summary.json", "requests.jsonl", "vllm.json", "report.html")
        ],
    }


def charts(run: LoadRun) -> dict[str, Spec]:
    """Return a run's charts by the name in their address."""
    return loadcharts.named(run.summary, run.charts)


def _sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return what a result says in words: its answers alone where all went well, else the verdict before them."""
    found = loadverdict.answers(summary, brief=summary["plan"].get("kind") == "ab")
    return found if found and _answered(summary) else [loadverdict.verdict(summary), *found]


def _in_brief(run: LoadRun) -> str:
    """Return the same in a line of the list."""
    found = loadprogress.brief(run)
    return found if found and _answered(run.summary) else f"{loadverdict.verdict(run.summary)} {found}".strip()


def _answered(summary: Mapping[str, Any]) -> bool:
    """Whether what a result has found says all: nothing went wrong, or that is in the answer."""
    kind, code, ended = summary["plan"].get("kind", "run"), summary["exit_code"], summary["ended"]
    return bool((kind == "search" and ended == COMPLETE) or (kind != "run" and code == 0))


def _chart(run: LoadRun, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    kinds = [(kind.upper(), reverse("load-chart", args=[run.id, name, kind])) for kind in chart_files.FORMATS]
    return {
        "name": name,
        "title": spec["title"]["text"],
        "at": spec.get("usermeta", {}).get("at", ""),
        "url": reverse("load-chart", args=[run.id, name, "json"]),
        "files": kinds,
    }


def _tables(run: LoadRun) -> list[dict[str, Any]]:
    """Return each backend with the figures of each load: one of a single run, those of all its steps of a sweep."""
    found: dict[str, list[dict[str, Any]]] = {}
    for slug, load, block in blocks(run.summary):
        found.setdefault(slug, []).append({"load": load, **_figures(block)})
    return [{**target, "loads": found[target["slug"]]} for target in targets(run) if target["slug"] in found]


def _figures(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one set of figures."""
    counts, share = block["requests"], block["attainment"]
    low, high = block["attainment_interval"] or (None, None)
    facts = [
        ("answers", count_text(counts["ok"])),
        ("failed", count_text(counts["failed"])),
        ("answers/s", count_text(block["requests_per_s"])),
        ("output tok/s", count_text(block["output_tokens_per_s"])),
    ]
    facts += _left(block)
    if counts["interrupted"]:
        late = f", {count_text(counts['overdue'])} of them too late already" if counts.get("overdue") else ""
        facts.append(("unfinished", f"{count_text(counts['interrupted'])}{late}"))
    if share is not None:
        facts += [
            ("good answers", f"{share:.1%} ({low:.0%} to {high:.0%})"),
            ("goodput/s", count_text(block["goodput_per_s"])),
        ]
    rows = [
        {"label": label, "define": define, **_row(block[f"{figure}_ms"], block[f"{figure}_sched_ms"])}
        for figure, label, define in FIGURES
    ]
    return {"facts": facts, "rows": rows, "warnings": block["warnings"]}


def _left(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say who left, and what the server went on to do for them, as far as it says so."""
    left, server = block["requests"]["left"], block.get("server") or {}
    if not left:
        return []
    after = time_words(block.get("left_ms", {}).get("p50"))
    facts = [("left without an answer", f"{count_text(left)}, after {after} (p50)")]
    if server.get("unread_tokens") is not None:
        facts.append(("tokens for nobody", count_text(server["unread_tokens"])))
    if server.get("held_ms") is not None:
        facts.append(("server went on for", time_words(server["held_ms"])))
    return facts


def _row(found: Mapping[str, Any], intended: Mapping[str, Any]) -> dict[str, Any]:
    """Return one figure's cells; a percentile that too few samples support says how many it wants."""
    n = found["n"]
    cells = [
        {"text": time_words(found[f"p{percent}"]), "wants": ENOUGH_FOR[percent] if n < ENOUGH_FOR[percent] else 0}
        for percent in PERCENTS
    ]
    more = [{"text": time_words(value), "wants": 0} for value in (found["mean"], found["max"], intended["p95"])]
    return {"n": count_text(n), "cells": cells + more}


def _errors(run: LoadRun) -> list[dict[str, Any]]:
    letters = {target["slug"]: target["letter"] for target in targets(run)}
    return [
        {**error, "slug": slug, "letter": letters.get(slug, ""), "load": load}
        for slug, load, block in blocks(run.summary)
        for error in block["errors"]
    ]


def _generator(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = summary["generator"]
    facts = [
        ("loop lag, p99", time_words(found["hub_lag_ms"]["p99"])),
        ("sent late, p99", time_words(found["send_late_ms"]["p99"])),
        ("busiest process", f"{found['cpu_cores']:.2f} cores"),
    ]
    return {"verdict": found["verdict"], "valid": not found["reasons"], "reasons": found["reasons"], "facts": facts}


def _facts(run: LoadRun) -> list[tuple[str, str]]:
    plan = run.plan
    facts = [("", words(run))] if title_of(run) != words(run).capitalize() else []
    facts += [("mix", plan.get("mix", "")), ("over", WIRES.get(run.wire, run.wire))]
    if slo := (run.summary.get("slo") or {}).get("text") or plan.get("slo", ""):
        facts.append(("SLO", slo))
    if changed := _changed(run):
        facts.append(("changed while it ran", changed))
    if kind_of(run) in SERIES:
        facts.append(("each run", _seconds(run)))
    elif measured := run.summary.get("measured_s"):
        facts.append(("measured", f"{measured:g} s of {plan.get('duration_s', 0):g} s"))
    return facts


def _seconds(run: LoadRun) -> str:
    """Say how long a run was to last, or each of a series: a search takes longer where too few requests begin."""
    return f"{run.plan.get('duration_s', 0):g} s{' or longer' if kind_of(run) == 'search' else ''}"


def _changed(run: LoadRun) -> str:
    """Say between what somebody has moved a run's load; "" where nobody has."""
    name, unit = {"users": ("users", "users"), "rate": ("rate", "requests/s")}.get(steers(run), ("", ""))
    found = [line[name] for line in run.charts.get("series", ()) if line.get(name) is not None] if name else []
    planned = run.plan.get("stages") or len(set(rates(run.plan))) > 1
    return f"{span(found)} {unit}" if found and min(found) != max(found) and not planned else ""
