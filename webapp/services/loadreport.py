"""A load run's report.html: one file without scripts and without references, its charts inside as SVG."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from webapp import drain
from webapp.core.loadstats import FIGURES
from webapp.core.loadsummary import (
    blocks,
    load_words,
    name_at,
    number,
    patience_words,
)
from webapp.services import loadcharts
from webapp.services.children import die_with_parent, end
from webapp.services.loadcharts import lanes_of
from webapp.services.loadverdict import answers, sentences

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
.settings{width:auto}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:1rem}
.charts svg{width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:6px}
.bad{color:var(--bad)}small{overflow-wrap:anywhere}
.badge{font-size:.75rem;border:1px solid;border-radius:3px;padding:0 .3rem}.answer{font-size:1.15rem;margin:1rem 0}
"""
NAMES = {"ttft": "TTFT", "ttfo": "TTFO", "tpot": "TPOT", "icl": "ICL", "e2e": "whole answer"}
REPORT = (sys.executable, "manage.py", "load", "report")
REPORT_S = 60.0
SETTINGS = ("seed", "workers", "turns", "warmup_s", "cooldown_s", "ramp_s", "grace_s")


def write(folder: Path, summary: Mapping[str, Any], chart_data: Mapping[str, Any]) -> Path:
    """Write report.html into a run's folder and return its path."""
    path = folder / "report.html"
    path.write_text(page(summary, loadcharts.drawn(loadcharts.specs(summary, chart_data))), encoding="utf-8")
    return path


def write_apart(folder: Path) -> None:
    """Have another process write the report: drawing takes half a second that a serving process has no time for.

    A result without a report is a result: why there is none is logged.
    """
    command = [*REPORT, "--out", str(folder)]
    try:
        code, said = _ended(command)
        failed = f"exit code {code}, {said.strip()[-300:]}" if code else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failed = str(error)
    if failed:
        log.warning("the report of %s was not written: %s", folder, failed)


def _ended(command: Sequence[str]) -> tuple[int, str]:
    """Run a command that ends with this process, in order or not, and return its exit code and what it complained of.
    Raises OSError and TimeoutExpired.
    """
    with subprocess.Popen(  # noqa: S603
        command,
        cwd=settings.BASE_DIR,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    ) as process:
        forget = drain.on_drain(lambda: end(process))  # and reap it, which its own thread may not come to
        try:
            _, said = process.communicate(timeout=REPORT_S)
        finally:
            forget()
            process.kill()
    return process.returncode, said


def page(summary: Mapping[str, Any], svgs: Sequence[str]) -> str:
    """Return the whole report."""
    plan = summary["plan"]
    started = datetime.fromtimestamp(summary["started_at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    badges = {target["slug"]: target["badge"] for target in plan["targets"]}
    parts = [
        format_html("<h1>Load test: {}</h1>", ", ".join(f"{lane.letter} {lane.slug}" for lane in lanes_of(summary))),
        format_html('<p class="soft">{} · {} · {} s measured · {}</p>', started, _load(plan), summary["measured_s"],
                    summary["ended"]),
        _answer(summary),
        _table(summary, badges),
        mark_safe('<div class="charts">' + "".join(svgs) + "</div>"),  # noqa: S308 (made by vl-convert from our specs)
        _errors(summary),
        _notes(summary),
        _settings(summary["plan"]),
    ]  # fmt: skip
    head = format_html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Load test</title>'
        '<meta http-equiv="Content-Security-Policy" content="{}">'
        '<meta name="viewport" content="width=device-width"><style>{}</style></head><body>',
        POLICY,
        mark_safe(STYLE),  # noqa: S308 (a constant)
    )
    return head + "".join(parts) + "</body></html>\n"


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
        "Versions: " + ", ".join(f"{name} {number}" for name, number in summary["versions"].items()),
    ]
    return format_html(
        "<h2>Method and host</h2>{}{}",
        format_html_join("", "<p>{}: {}</p>", warnings),
        format_html_join("", "<p><small>{}</small></p>", ((line,) for line in lines)),
    )


def settings_of(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what else a run was asked than its title says, by name, as the page and the report show it."""
    behaviour = [(name, value) for name, value in plan.get("behaviour", {}).items() if value]
    shown = [(name, plan[name]) for name in SETTINGS if name in plan]
    return [(name.replace("_s", ", s").replace("_", " "), f"{value:g}") for name, value in [*shown, *behaviour]]


def _settings(plan: Mapping[str, Any]) -> SafeString:
    models = [(target["slug"], f"model {target['model']}") for target in plan["targets"]]
    rows = format_html_join("", "<tr><td>{}</td><td>{}</td></tr>", [*models, *settings_of(plan)])
    return format_html(
        '<h2>Settings</h2><table class="settings">{}</table>'
        "<p><small>Every setting stands in summary.json, under plan.</small></p>",
        rows,
    )


def _load(plan: Mapping[str, Any]) -> str:
    wire = {"sse": "the machine wire", "ws": "the page's socket", "direct": "the backends' own URLs"}[plan["wire"]]
    return f"{load_words(plan)}, mix {plan['mix']}, over {wire}"
