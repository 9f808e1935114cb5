"""What load runs leave in their folders: summaries, records, live lines; made again where a run was killed before it
could write them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from webapp.core import loadplan, vllmbench
from webapp.core.loadplan import Plan
from webapp.core.loadsummary import INTERRUPTED, chart_data, rebuilt
from webapp.services import loadsearch

TAIL_BYTES = 256 * 1024


def results(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return a folder's summary and chart data, and whether they had to be made from what a killed run has left.

    ({}, {}, False) where there is nothing.
    """
    summary, charts = _read(folder / "summary.json"), _read(folder / "charts.json")
    if summary:
        return summary, charts, False
    try:
        plan = loadplan.from_data(_read(folder / "params.json"))
    except (ValueError, TypeError, KeyError):
        return {}, {}, False
    return _joined(folder, plan) if plan.is_series else _rebuilt(folder, plan)


def read_live(folder: Path, after_bytes: int = 0, tail_bytes: int = TAIL_BYTES) -> tuple[list[dict[str, Any]], int]:
    """Return the live lines of a folder that were written after an offset, and the offset to go on from.

    0 begins with the last `tail_bytes` at most; a line that is still being written is left for the next look.
    """
    try:
        with open(folder / "live.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            skipped = not after_bytes and size > tail_bytes
            start_at = size - tail_bytes if skipped else after_bytes
            file.seek(start_at)
            data = file.read()
    except OSError:
        return [], after_bytes
    whole, newline, _ = data.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    found = [orjson.loads(line) for line in lines[1 if skipped else 0 :] if line]
    return found, start_at + len(whole) + len(newline)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; a last line that was cut is left out."""
    found = []
    try:
        with open(path, "rb") as file:
            for line in file:
                try:
                    found.append(orjson.loads(line))
                except orjson.JSONDecodeError:
                    break
    except OSError:
        return []
    return found


def last_words(folder: Path) -> str:
    """Return why a generator failed, from the end of its log; of a search or a sweep, the last one's."""
    logs = sorted(folder.rglob("locust.log"), key=lambda path: path.stat().st_mtime)
    lines = logs[-1].read_text(encoding="utf-8", errors="replace").strip().splitlines() if logs else []
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing")
    return f"The load generator failed: {said.strip()[:300]}"


def _rebuilt(folder: Path, plan: Plan) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Make a run's results from the requests that it had recorded."""
    start, lines = _read(folder / "start.json"), read_lines(folder / "requests.jsonl")
    if not start or not lines:
        return {}, {}, False
    summary, stats = rebuilt(plan, lines, start)
    charts = chart_data(plan, stats, read_lines(folder / "live.jsonl"))
    (folder / "vllm.json").write_bytes(vllmbench.results(plan, stats, summary["measured_s"], start["started_at"]))
    (folder / "charts.json").write_bytes(orjson.dumps(charts))
    (folder / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    return summary, charts, True


def _joined(folder: Path, plan: Plan) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Make the results of a search or a sweep from the runs that it had made: the same steps lead to the same ones."""

    def found(_: Plan, where: Path) -> dict[str, Any]:
        return results(where)[0] or {"ended": INTERRUPTED}

    summary = loadsearch.series(plan, folder, found)
    return summary, _read(folder / "charts.json"), bool(summary)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return data if isinstance(data, dict) else {}
