"""Live objects to rows. While anything is measured, rows are built here and handed to the writer; nothing waits."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from django.db import transaction

from webapp.core.errors import Outcome
from webapp.models import Comparison, Turn
from webapp.services.owners import OWNER, is_gone
from webapp.services.writer import writer

if TYPE_CHECKING:
    from webapp.services.lanes import Lane
    from webapp.services.runs import Run
    from webapp.services.turns import LiveTurn

LEVELS = 100
LARGEST_COUNT = 2**31 - 1
PACKAGES = ("django", "channels", "daphne", "aiohttp", "orjson")


def versions() -> dict[str, str]:
    """Return the versions of what took part in a measurement."""
    from_packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **from_packages}


VERSIONS = versions()


def begin(run: Run) -> None:
    """Note that a run has begun: if this process dies, its rows say so at the next start."""
    if not run.keep:
        return
    row = Comparison(
        id=run.id,
        created_at=run.created_at,
        asked_by=run.asked_by,
        prompt=storable(run.ask.prompt),
        scenario=run.ask.scenario.slug if run.ask.scenario else "",
        order=run.ask.order,
        settings=run.ask.settings(),
        versions=VERSIONS,
        owner=OWNER,
    )
    writer.submit(lambda: row.save(force_insert=True))


def finish(run: Run) -> None:
    """Write the run's verdict and all its turns, in one transaction."""
    if not run.keep:
        return

    def write() -> None:
        # Built here, in the writer's thread: a long answer has thousands of deltas, and other runs may be measuring.
        turns = [turn_row(run, index, lane, turn) for index, lane in enumerate(run.lanes) for turn in lane.turns]
        verdict = run.verdict.as_dict() if run.verdict else {}
        with transaction.atomic():
            Turn.objects.bulk_create(turns)
            Comparison.objects.filter(id=run.id).update(done=True, verdict=verdict)

    writer.submit(write)


def end_orphans() -> int:
    """Mark what processes of this host that are gone have left running as interrupted; return how many runs that were.

    For the start of a process: unlike the rest it writes at once, in the caller's thread.
    """
    orphans = [run for run in Comparison.objects.filter(done=False) if is_gone(run.owner)]
    ids = [run.id for run in orphans]
    Turn.objects.filter(comparison__in=ids, outcome=Outcome.RUNNING).update(outcome=Outcome.INTERRUPTED)
    sentence = {"sentence": "Interrupted: the server ended before this comparison did."}
    return Comparison.objects.filter(id__in=ids).update(done=True, verdict=sentence)


def turn_row(run: Run, index: int, lane: Lane, turn: LiveTurn) -> Turn:
    """Return the row of an ended turn; its times are ns and µs from the lane's origin."""
    figures = turn.figures()
    meter = turn.meter
    return Turn(
        id=turn.id,
        comparison_id=run.id,
        lane=index,
        step=turn.step,
        created_at=run.created_at,
        backend_slug=turn.spec.slug,
        label=turn.spec.label,
        model=turn.spec.model,
        badge=turn.badge,
        source=lane.source,
        messages=storable(list(turn.prompt.messages)),
        settings=storable(run.ask.settings() | turn.prompt.extra | _prices(turn)),
        outcome=turn.outcome if turn.outcome is not Outcome.RUNNING else Outcome.INTERRUPTED,
        error_kind=turn.error.kind if turn.error else "",
        error=storable(turn.error.message) if turn.error else "",
        notes=turn.notes,
        finish_reason=storable(meter.finish_reason or "")[:40],
        connection_reused=turn.reused,
        loop_lag_p99_us=turn.loop_lag_ns // 1000 if turn.loop_lag_ns is not None else None,
        marks_ns=turn.marks.since(lane.origin_ns),
        deltas=[[d.at_ns - lane.origin_ns, d.kind, storable(d.text), d.tokens] for d in meter.deltas],
        usage=_usage(turn),
        server_times=storable(meter.server_times),
        figures=figures.as_dict(),
        ttft_us=_us(figures.ttft_ms),
        e2e_us=_us(figures.e2e_ms),
        output_tokens=_column(figures.output_tokens),
    )


def _prices(turn: LiveTurn) -> dict[str, Any]:
    """Return the prices that the figures were computed with: they may change later, the stored cost may not."""
    prices = {"in": turn.spec.price_in_usd_per_mtok, "out": turn.spec.price_out_usd_per_mtok}
    return {"prices_usd_per_mtok": prices} if None not in prices.values() else {}


def _usage(turn: LiveTurn) -> dict[str, Any] | None:
    usage = turn.meter.usage
    if usage is None:
        return None
    names = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
    return {name: getattr(usage, name) for name in names}


def storable(value: Any, levels: int = LEVELS) -> Any:
    """Return `value` as every database takes it: what a server or a client sent must not cost anybody a row.

    NUL characters, which PostgreSQL's text and jsonb refuse, become U+FFFD; what is nested deeper than `levels`, which
    no encoder would survive, becomes an ellipsis.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return "…"
    if isinstance(value, dict):
        return {storable(key): storable(item, levels - 1) for key, item in value.items()}
    return [storable(item, levels - 1) for item in value]


def _column(count: int | None) -> int | None:
    """Return a count as an integer column holds it, None where a server made up a larger one."""
    return count if count is not None and count <= LARGEST_COUNT else None


def _us(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1000)
