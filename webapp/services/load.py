"""Load runs as rows: start, watch, steer, stop, delete, and end what a dead process left behind.

Each run has a supervising thread, in which its job runs and which keeps the results whatever their end was.
"""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from webapp import drain
from webapp.core.loadplan import Plan
from webapp.core.loadsummary import described
from webapp.models import LoadRun
from webapp.services import loadreport
from webapp.services.loadjob import Job
from webapp.services.loadplans import Refusal
from webapp.services.loadprocess import is_ours, kill_group
from webapp.services.loadresults import last_words, read_live, results
from webapp.services.owners import OWNER, is_gone

log = logging.getLogger(__name__)

MOST_RUNNING = 2
LINE_BYTES = 32 * 1024  # longer than any live line

STATE_OF_END = {"complete": LoadRun.State.DONE, "stopped": LoadRun.State.STOPPED}

_running: dict[str, Job] = {}
_threads: dict[str, threading.Thread] = {}


def start(plan: Plan, keys: Mapping[str, str] | None = None, *, asked_by: str = "page", title: str = "") -> LoadRun:
    """Start a run in the background and return its row. Raises Refusal where too many run already."""
    if len(_running) >= MOST_RUNNING:
        raise Refusal(f"{MOST_RUNNING} load runs are going on already; stop one first.")
    row = make_row(plan, asked_by=asked_by, title=title)
    kept, begun = LoadRun.objects.filter(id=row.id), threading.Event()

    def began(group: int) -> None:
        kept.update(group=group)
        begun.set()

    def found(summary: dict[str, Any]) -> None:
        kept.update(summary=summary)

    job = Job(plan, Path(row.folder), keys or {}, began, found)
    thread = threading.Thread(target=_supervise, args=(row.id, job, begun), name=f"load-{row.id}", daemon=True)
    _running[row.id], _threads[row.id] = job, thread
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
    job = _running.get(run_id)
    if job is not None:
        job.stop()
    return job is not None


def is_stopping(run_id: str) -> bool:
    """Whether somebody has asked a run to stop that is still going on here."""
    job = _running.get(run_id)
    return job is not None and job.stopping


def steer(run_id: str, load: Mapping[str, float]) -> bool:
    """Change the load on each backend of a run that is going on: {"users": N} of closed loops, {"rate": requests per
    second} of an open one. False where it does not run here.
    """
    job = _running.get(run_id)
    if job is not None:
        job.steer(load)
    return job is not None


def wait(run_id: str, seconds: float | None = None) -> bool:
    """Wait for a run that was started here; True where it has ended."""
    thread = _threads.get(run_id)
    if thread is not None:
        thread.join(seconds)
    return thread is None or not thread.is_alive()


def live(run: LoadRun, after_bytes: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the live lines of a run that were written after an offset, and the offset to go on from."""
    return read_live(Path(run.folder), after_bytes)


def latest(run: LoadRun) -> dict[str, Any]:
    """Return the last live line of a run, {} where there is none yet."""
    lines, _ = read_live(Path(run.folder), tail_bytes=LINE_BYTES)
    return lines[-1] if lines else {}


def settle(run: LoadRun) -> None:
    """Wait until the report of a run that has ended is written, too: it comes a second or two after the results."""
    if run.state != LoadRun.State.RUNNING:
        wait(run.id, loadreport.REPORT_S)


def delete(run: LoadRun) -> None:
    """Remove a run that has ended, with its files where they are ours to remove. Raises Refusal while it goes on."""
    settle(run)
    elsewhere = run.state == LoadRun.State.RUNNING and run.owner != OWNER and not is_gone(run.owner)
    if run.id in _threads or elsewhere:  # a thread goes on until the results are kept
        raise Refusal("This load run is still going on; stop it first.")
    folder = Path(run.folder)
    if folder.parent == (settings.VAR_DIR / "loads").resolve():  # not that folder itself, in which all the others lie
        shutil.rmtree(folder, ignore_errors=True)
    run.delete()


def end_orphans() -> int:
    """End and mark the runs of processes of this host that are gone; return how many there were."""
    orphans = [run for run in LoadRun.objects.filter(state=LoadRun.State.RUNNING) if is_gone(run.owner)]
    for run in orphans:
        if run.group and is_ours(run.group):
            kill_group(run.group, signal.SIGKILL)
        finish_row(run, "Interrupted: the server ended before this run did; what had been measured is kept.")
        write_report(run)
    return len(orphans)


def finish_row(run: LoadRun, note: str = "", *, stopped: bool = False) -> LoadRun:
    """Read what a run has left behind into its row. `stopped`: somebody had asked for the end."""
    folder = Path(run.folder)
    summary, charts, _ = results(folder)
    ended = summary.get("ended", "interrupted") if summary else ""
    run.summary, run.charts = summary, charts
    run.state = STATE_OF_END.get(ended, LoadRun.State.INTERRUPTED if summary else LoadRun.State.FAILED)
    run.exit_code = summary.get("exit_code") if summary else 1
    run.ended_at = timezone.now()
    if stopped and not summary:
        run.state, run.exit_code, note = LoadRun.State.STOPPED, 4, "Stopped before anything was measured."
    if not note and run.state == LoadRun.State.INTERRUPTED:
        note = "Interrupted: the load generator was ended before its time; what had been measured is kept."
    if run.state == LoadRun.State.FAILED:
        note = note or last_words(folder)
    run.note = note
    run.save()
    return run


def write_report(run: LoadRun) -> None:
    """Write the report of a run whose results are kept in its row."""
    if run.summary:
        loadreport.write_apart(Path(run.folder))


def keep_finished(folder: Path, summary: Mapping[str, Any], *, title: str = "") -> LoadRun:
    """Add the row of a run that the command line has finished, for the page's list, instead of those whose files it
    has written over.
    """
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
    # A row with another's files would hand them out as its own, and take them along when it is deleted.
    LoadRun.objects.filter(folder=row.folder).exclude(id=row.id).exclude(state=LoadRun.State.RUNNING).delete()
    return row


def _supervise(run_id: str, job: Job, begun: threading.Event) -> None:
    forget: Callable[[], None] | None = None
    try:
        forget = drain.on_drain(job.stop)
        try:
            job.run()
        except Exception as failed:  # whatever it was, the row says so and keeps what had been measured
            log.exception("the load run %s broke off", run_id)
            job.note = f"The run broke off: {failed}."
        row = finish_row(LoadRun.objects.get(id=run_id), job.note, stopped=job.stopping)
        _running.pop(run_id, None)  # not before the row says so: until then a run that was stopped is stopping
        write_report(row)
    finally:
        begun.set()
        if forget is not None:
            forget()
        _running.pop(run_id, None)
        _threads.pop(run_id, None)
        close_old_connections()
