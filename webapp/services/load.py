"""Load runs as rows: start, watch, steer, stop, delete, and end what a dead process left behind.

Each run has a supervising thread, which starts the process (its parent, to the kernel), waits for it and keeps its
results whatever its end was.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from webapp import drain
from webapp.core import loadplan
from webapp.core.loadplan import Plan
from webapp.core.loadsummary import chart_data, described, rebuilt
from webapp.models import LoadRun
from webapp.services import loadreport
from webapp.services.loadplans import Refusal
from webapp.services.loadprocess import LoadProcess, control, is_ours, kill_group
from webapp.services.owners import OWNER, is_gone

MOST_RUNNING = 2
INSIST_S = 8.0
GRACE_S = 20.0  # beyond a run's own time, before it is taken for hung
TAIL_BYTES = 256 * 1024

STATE_OF_END = {"complete": LoadRun.State.DONE, "stopped": LoadRun.State.STOPPED}

_running: dict[str, LoadProcess] = {}
_threads: dict[str, threading.Thread] = {}


def start(plan: Plan, keys: Mapping[str, str] | None = None, *, asked_by: str = "page", title: str = "") -> LoadRun:
    """Start a run in the background and return its row. Raises Refusal where too many run already."""
    if len(_running) >= MOST_RUNNING:
        raise Refusal(f"{MOST_RUNNING} load runs are going on already; stop one first.")
    row = make_row(plan, asked_by=asked_by, title=title)
    begun = threading.Event()
    thread = threading.Thread(
        target=_supervise, args=(row.id, plan, dict(keys or {}), begun), name=f"load-{row.id}", daemon=True
    )
    _threads[row.id] = thread
    thread.start()
    begun.wait(10)
    return row


def make_row(plan: Plan, *, asked_by: str, title: str = "", folder: Path | None = None) -> LoadRun:
    row = LoadRun(
        created_at=timezone.now(),
        asked_by=asked_by,
        title=title,
        wire=plan.wire,
        mode=plan.mode,
        backends=plan.slugs,
        plan=described(plan),
        owner=OWNER,
    )
    row.folder = str((folder or settings.VAR_DIR / "loads" / row.id).resolve())
    row.save(force_insert=True)
    return row


def stop(run_id: str) -> bool:
    """Ask a run to stop: nothing leaves any more within a fifth of a second. False where it does not run here."""
    process = _running.get(run_id)
    if process is None:
        return False
    control(process.folder, {"stop": True})
    insistence = threading.Timer(INSIST_S, _insist, (process,))
    insistence.daemon = True
    insistence.start()
    return True


def steer(run_id: str, load: Mapping[str, float]) -> bool:
    """Change the load on each backend of a run that is going on: {"users": N} of closed loops, {"rate": requests per
    second} of an open one. False where it does not run here.
    """
    process = _running.get(run_id)
    if process is None:
        return False
    control(process.folder, load)
    return True


def wait(run_id: str, seconds: float | None = None) -> bool:
    """Wait for a run that was started here; True where it has ended."""
    thread = _threads.get(run_id)
    if thread is not None:
        thread.join(seconds)
    return thread is None or not thread.is_alive()


def live(run: LoadRun, after_bytes: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the live lines of a run that were written after an offset, and the offset to go on from."""
    return read_live(Path(run.folder), after_bytes)


def read_live(folder: Path, after_bytes: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The same of a folder. 0 begins with the last quarter of a megabyte at most; a line that is still being written
    is left for the next look.
    """
    try:
        with open(folder / "live.jsonl", "rb") as file:
            size = file.seek(0, os.SEEK_END)
            skipped = not after_bytes and size > TAIL_BYTES
            start_at = size - TAIL_BYTES if skipped else after_bytes
            file.seek(start_at)
            data = file.read()
    except OSError:
        return [], after_bytes
    whole, newline, _ = data.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    found = [orjson.loads(line) for line in lines[1 if skipped else 0 :] if line]
    return found, start_at + len(whole) + len(newline)


def delete(run: LoadRun) -> None:
    """Remove a run that has ended, with its files where they are ours to remove."""
    if run.id in _running:
        raise Refusal("This load run is still going on; stop it first.")
    folder = Path(run.folder)
    if folder.is_relative_to((settings.VAR_DIR / "loads").resolve()):
        shutil.rmtree(folder, ignore_errors=True)
    run.delete()


def end_orphans() -> int:
    """End and mark the runs of processes of this host that are gone; return how many there were."""
    orphans = [run for run in LoadRun.objects.filter(state=LoadRun.State.RUNNING) if is_gone(run.owner)]
    for run in orphans:
        if run.group and is_ours(run.group):
            kill_group(run.group, signal.SIGKILL)
        finish_row(run, "Interrupted: the server ended before this run did; what had been measured is kept.")
    return len(orphans)


def finish_row(run: LoadRun, note: str = "") -> LoadRun:
    """Read what a run has left behind into its row, and write its report."""
    folder = Path(run.folder)
    summary, charts, _ = results(folder)
    ended = summary.get("ended", "interrupted") if summary else ""
    run.summary, run.charts = summary, charts
    run.state = STATE_OF_END.get(ended, LoadRun.State.INTERRUPTED if summary else LoadRun.State.FAILED)
    run.exit_code = summary.get("exit_code") if summary else 1
    run.ended_at = timezone.now()
    if not note and run.state == LoadRun.State.INTERRUPTED:
        note = "Interrupted: the load generator was ended before its time; what had been measured is kept."
    if run.state == LoadRun.State.FAILED:
        note = note or last_words(folder)
    else:
        loadreport.write_apart(folder)
    run.note = note
    run.save()
    return run


def keep_finished(folder: Path, summary: Mapping[str, Any], *, title: str) -> LoadRun:
    """Add the row of a run that the command line has finished, for the page's list."""
    plan = summary["plan"]
    row = LoadRun(
        created_at=timezone.now(),
        ended_at=timezone.now(),
        asked_by="cli",
        title=title,
        state=STATE_OF_END.get(summary["ended"], LoadRun.State.INTERRUPTED),
        wire=plan["wire"],
        mode=plan["mode"],
        backends=list(summary["backends"]),
        plan=plan,
        summary=dict(summary),
        charts=results(folder)[1],
        exit_code=summary["exit_code"],
        folder=str(folder.resolve()),
        owner=OWNER,
    )
    row.save(force_insert=True)
    return row


def results(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return a folder's summary and chart data, and whether they had to be made from the records of a killed run.

    ({}, {}, False) where there is nothing.
    """
    summary, charts = _read(folder / "summary.json"), _read(folder / "charts.json")
    if summary:
        return summary, charts, False
    try:
        plan = loadplan.from_data(_read(folder / "params.json"))
    except (ValueError, TypeError, KeyError):
        return {}, {}, False
    lines = read_lines(folder / "requests.jsonl")
    if not lines:
        return {}, {}, False
    summary, stats = rebuilt(plan, lines)
    charts = chart_data(plan, stats, read_lines(folder / "live.jsonl"))
    (folder / "charts.json").write_bytes(orjson.dumps(charts))
    (folder / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    return summary, charts, True


def _read(path: Path) -> dict[str, Any]:
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


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


def _insist(process: LoadProcess) -> None:
    """End a process that has not listened."""
    if process.wait(0) is None:
        process.stop()


def _supervise(run_id: str, plan: Plan, keys: dict[str, str], begun: threading.Event) -> None:
    forget: Callable[[], None] | None = None
    try:
        row = LoadRun.objects.get(id=run_id)
        process = LoadProcess(plan, Path(row.folder), keys)
        _running[run_id] = process
        forget = drain.on_drain(lambda: control(process.folder, {"stop": True}))
        LoadRun.objects.filter(id=run_id).update(group=process.group)
        begun.set()
        code = process.wait(plan.duration_s + plan.grace_s + GRACE_S)
        note = ""
        if code is None:
            process.stop()
            note = "The load generator hung and was ended."
        kill_group(process.group, signal.SIGKILL)
        _running.pop(run_id, None)
        row.refresh_from_db()
        finish_row(row, note)
    finally:
        begun.set()
        if forget is not None:
            forget()
        _running.pop(run_id, None)
        _threads.pop(run_id, None)
        close_old_connections()


def last_words(folder: Path) -> str:
    """Return why a generator failed, from the end of its log."""
    try:
        lines = (folder / "locust.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing")
    return f"The load generator failed: {said.strip()[:300]}"
