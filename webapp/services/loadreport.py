"""A load run's report.html: one file without scripts and without references, its charts inside as SVG."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import vl_convert
from django.conf import settings
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from webapp.core import chartlanes, charts
from webapp.core.chartlanes import Lane
from webapp.core.generator import LIMITED, VALID
from webapp.core.loadstats import FIGURES, wanted
from webapp.core.loadsummary import (
    COMPLETE,
    INTERRUPTED,
    blocks,
    figures_at,
    load_words,
    name_at,
    number,
    patience_words,
    step_words,
)
from webapp.core.slo import parse
from webapp.core.stats import ENOUGH_FOR

log = logging.getLogger(__name__)

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # wherever the file is opened, it fetches and runs nothing
STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#60646c;--line:#d9d9e0;--paper:#fff;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#edeef0;--soft:#b0b4ba;--line:#43484e;--paper:#18191b;--bad:#ff9592}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:75rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p.soft,small{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:1rem}
.charts svg{width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:6px}
.bad{color:var(--bad)}small{overflow-wrap:anywhere}
.badge{font-size:.75rem;border:1px solid;border-radius:3px;padding:0 .3rem}.answer{font-size:1.15rem;margin:1rem 0}
"""
NAMES = {"ttft": "TTFT", "ttfo": "TTFO", "tpot": "TPOT", "icl": "ICL", "e2e": "whole answer"}
NAME_WORDS = 6
NOT_THE_SERVERS = "not the server's times"
REPORT_S = 60.0
NOT_MEASURABLE = 4
VERDICTS = {
    0: "Pass.",
    1: "There were errors in this run.",
    3: "The SLO was missed.",
}


def write(folder: Path, summary: Mapping[str, Any], chart_data: Mapping[str, Any]) -> Path:
    """Write report.html into a run's folder and return its path."""
    path = folder / "report.html"
    path.write_text(page(summary, drawn(specs(summary, chart_data))), encoding="utf-8")
    return path


def write_apart(folder: Path) -> None:
    """Have another process write the report: drawing takes half a second that a serving process has no time for.

    A result without a report is a result: why there is none is logged.
    """
    command = [sys.executable, "manage.py", "load", "report", "--out", str(folder)]
    try:
        done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=REPORT_S)  # noqa: S603
        failed = f"exit code {done.returncode}, {done.stderr.strip()[-300:]}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failed = str(error)
    if failed:
        log.warning("the report of %s was not written: %s", folder, failed)


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
    if not _is_series(summary):
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
    of_all = [] if _is_series(summary) else [f"{LIMITED}: {NOT_THE_SERVERS}"]  # as an earlier version kept it
    return _named(said) or of_all


def _cut(summary: Mapping[str, Any]) -> list[str]:
    """Return the line that says of a run's charts that it did not come to its end."""
    if summary["ended"] == COMPLETE:
        return []
    if _is_series(summary):
        return [f"{summary['ended']}: not all of its runs were made"]
    return [f"{summary['ended']} at {summary['duration_s']:.0f} s of {summary['plan']['duration_s']:.0f} s"]


def _is_series(summary: Mapping[str, Any]) -> bool:
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


def page(summary: Mapping[str, Any], svgs: Sequence[str]) -> str:
    """Return the whole report."""
    plan = summary["plan"]
    started = datetime.fromtimestamp(summary["started_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    badges = {target["slug"]: target["badge"] for target in plan["targets"]}
    parts = [
        format_html("<h1>Load test: {}</h1>", ", ".join(summary["backends"])),
        format_html('<p class="soft">{} · {} · {} s measured · {}</p>', started, _load(plan), summary["measured_s"],
                    summary["ended"]),
        _answer(summary),
        _table(summary, badges),
        mark_safe('<div class="charts">' + "".join(svgs) + "</div>"),  # noqa: S308 (made by vl-convert from our specs)
        _errors(summary),
        _notes(summary),
    ]  # fmt: skip
    head = format_html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Load test</title>'
        '<meta http-equiv="Content-Security-Policy" content="{}">'
        '<meta name="viewport" content="width=device-width"><style>{}</style></head><body>',
        POLICY,
        mark_safe(STYLE),  # noqa: S308 (a constant)
    )
    return head + "".join(parts) + "</body></html>\n"


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return what a result says, in words: the answers to what was asked, the verdict, what the generator missed."""
    said = [] if summary.get("search") else [verdict(summary)]
    return [*answers(summary), *said, *summary["generator"]["reasons"]]


def verdict(summary: Mapping[str, Any]) -> str:
    """Return what the exit code says, in words."""
    series = _is_series(summary)
    if series and summary["ended"] != COMPLETE and not summary["generator"]["reasons"]:
        return "Cut short: these are the runs that had been made."
    if cut := summary.get("cut_short"):  # stopped from the command line
        return cut if summary["exit_code"] == NOT_MEASURABLE else f"{cut} {VERDICTS.get(summary['exit_code'], '')}"
    if summary["exit_code"] == NOT_MEASURABLE:
        return f"Not measurable: {_why_not(summary)}"
    return VERDICTS.get(summary["exit_code"], "")


def _why_not(summary: Mapping[str, Any]) -> str:
    """Say why a result is not measurable."""
    if not _is_series(summary) and summary["ended"] == INTERRUPTED:
        return "the load generator was ended before its time. What had been measured is kept."
    if summary["generator"]["reasons"]:
        return "the generator itself was the limit."
    counts = [block["requests"] for _, _, block in blocks(summary)]
    if not summary["slo"]:
        few = _count(min(count["ok"] for count in counts), "answer")
        return f"too few samples, {few} where a median wants {ENOUGH_FOR[50]}."
    slo = parse(summary["slo"]["text"])
    few = _count(min(count["asked"] for count in counts), "request")
    return f"too few samples, {few} where an SLO for {slo.target:.0%} wants {wanted(slo)}."


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def answers(summary: Mapping[str, Any], *, brief: bool = False) -> list[str]:
    """Return what a search, a sweep or a paired comparison has found; `brief` where the figures stand beside it."""
    found = [entry["sentence"] for entry in summary.get("search", {}).values()]
    points = summary.get("sweep", [])
    mode = summary["plan"]["mode"]
    for slug in dict.fromkeys(point["backend"] for point in points):
        found.append(sweep_sentence(slug, mode, [point for point in points if point["backend"] == slug]))
    return found + [pair_sentence(pair, brief=brief) for pair in summary.get("pairs", []) if pair["figure"] != "tpot"]


def sweep_sentence(slug: str, mode: str, points: Sequence[Mapping[str, Any]]) -> str:
    """Say what more load did to all users together, and to each of them."""
    first, last = points[0], points[-1]
    every, each = (
        " to ".join(dict.fromkeys(number(point[name]) for point in (first, last)))
        for name in ("throughput", "interactivity")
    )
    loads = ("" if first is last else f"{first['load']:g} to ") + step_words(mode, last["load"])
    return f"{slug}, {loads}: {every} tokens/s for all users together, {each} for each of them."


def pair_sentence(pair: Mapping[str, Any], *, brief: bool = False) -> str:
    """Say what a paired comparison found about one figure."""
    name = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "Whole answer"}[pair["figure"]]
    a, b = pair["a"], pair["b"]
    if pair["result"] == "cannot tell":
        return f"{name}: cannot tell {a} from {b} with {pair['n']} pairs."
    low, high = pair["interval_ms"]
    detail = (
        f" (median difference {pair['difference_ms']:+.1f} ms, 99 % interval {low:+.1f} to {high:+.1f} ms, "
        f"{a} first in {pair['p_a_faster']:.0%} of {pair['n']} pairs)"
    )
    if brief:
        detail = ""
    if pair["result"] == "no difference":
        return f"{name}: no difference between {a} and {b}{detail}."
    faster, slower = (a, b) if pair["result"] == "A faster" else (b, a)
    return f"{name}: {faster} is faster{detail or f' than {slower}'}."


def _answer(summary: Mapping[str, Any]) -> SafeString:
    bad = summary["exit_code"] != 0
    rows = (
        ("answer bad" if bad and sentence not in answers(summary) else "answer", sentence)
        for sentence in sentences(summary)
        if sentence
    )
    return format_html_join("", '<p class="{}">{}</p>', rows)


def _table(summary: Mapping[str, Any], badges: Mapping[str, str]) -> SafeString:
    rows = []
    for slug, load, block in blocks(summary):
        for place, figure in enumerate(FIGURES):
            cells = [block[f"{figure}_ms"][name] for name in ("p50", "p90", "p95", "p99", "mean", "max")]
            sched = block[f"{figure}_sched_ms"]["p95"]
            counts = block["requests"]
            badge = format_html(' <span class="badge">{}</span>', badges[slug]) if badges.get(slug) else ""
            name = format_html("{}{} ({} ok, {} failed)", name_at(slug, load), badge, counts["ok"], counts["failed"])
            first = name if place == 0 else ""
            rate = f"{number(block['output_tokens_per_s'])} tok/s" if place == 0 else ""
            share = block["attainment"]
            good = f"{share:.1%}" if place == 0 and share is not None else ""
            texts = [*map(number, cells), number(sched), rate, good]
            row = format_html_join("", "<td>{}</td>", ((text,) for text in texts))
            n = block[f"{figure}_ms"]["n"]
            rows.append(format_html("<tr><td>{}</td><td>{}</td><td>{}</td>{}</tr>", first, NAMES[figure], n, row))
    heads = (
        "backend, times in ms",
        "figure",
        "n",
        "p50",
        "p90",
        "p95",
        "p99",
        "mean",
        "max",
        "p95 intended",
        "output",
        "good",
    )
    head = format_html_join("", "<th>{}</th>", ((text,) for text in heads))
    return format_html(
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
        "<p><small>A percentile stands only where there are samples enough for it (p95: 20, p99: 100). “Intended”: from"
        " the time at which the request was meant to leave. Failures are in no percentile.</small></p>",
        head,
        mark_safe("".join(rows)),  # noqa: S308 (each row is escaped above)
    )


def _errors(summary: Mapping[str, Any]) -> SafeString:
    rows = [
        (name_at(slug, load), error["category"], error["kind"], error["count"], error["message"])
        for slug, load, block in blocks(summary)
        for error in block["errors"]
    ]
    if not rows:
        return SafeString("")
    body = format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", rows)
    heads = "<th>backend</th><th>class</th><th>kind</th><th>count</th><th>example</th>"
    return format_html("<h2>Errors</h2><table><tr>{}</tr>{}</table>", mark_safe(heads), body)  # noqa: S308


def _notes(summary: Mapping[str, Any]) -> SafeString:
    warnings = [
        (name_at(slug, load), text)
        for slug, load, block in blocks(summary)
        for text in filter(None, [patience_words(block), *block["warnings"]])
    ]
    generator = summary["generator"]
    lines = [
        f"Generator: {generator['verdict']}; loop lag p99 {number(generator['hub_lag_ms']['p99'])} ms, requests began "
        f"{number(generator['send_late_ms']['p99'])} ms late (p99), {generator['cpu_cores']:.2f} cores.",
        f"SLO: {summary['slo']['text'] if summary['slo'] else 'none'}.",
        "Settings: " + orjson.dumps(summary["plan"]).decode(),
        "Versions: " + ", ".join(f"{name} {number}" for name, number in summary["versions"].items()),
    ]
    return format_html(
        "<h2>Method and host</h2>{}{}",
        format_html_join("", "<p>{}: {}</p>", warnings),
        format_html_join("", "<p><small>{}</small></p>", ((line,) for line in lines)),
    )


def _load(plan: Mapping[str, Any]) -> str:
    wire = {"sse": "the machine wire", "ws": "the page's socket", "direct": "the backends' own URLs"}[plan["wire"]]
    return f"{load_words(plan)}, mix {plan['mix']}, over {wire}"
