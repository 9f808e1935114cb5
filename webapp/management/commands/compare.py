"""`manage.py compare`: the page's comparison without a browser, on the same measuring path, as text or JSON."""

from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webapp import queries
from webapp.core.errors import Outcome
from webapp.core.spec import BackendSpec
from webapp.core.verdict import duration
from webapp.forms import MAX_OUTPUT_TOKENS, MAX_PROMPT_CHARS
from webapp.management.interrupts import Interrupts
from webapp.management.readiness import prepare_database
from webapp.services.children import NotStarted, simulator_for
from webapp.services.lanes import Lane
from webapp.services.runs import LETTERS, Ask, Run, entries_for, truth_of
from webapp.services.upstreams import upstreams
from webapp.services.writer import writer

FLUSH_S = 10.0


class Command(BaseCommand):
    help = "Send one prompt to several backends at one instant and print what was measured."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--backend", action="append", required=True, metavar="SLUG", help="a lane; repeat for more")
        parser.add_argument("--prompt", required=True, help="what to ask")
        parser.add_argument("--max-tokens", type=int, help="longest answer (default: the backend's own)")
        parser.add_argument("--repeat", type=int, default=1, help="how many times, one after the other (default 1)")
        parser.add_argument("--json", action="store_true", help="as JSON: an object, or a list of them with --repeat")

    def handle(self, *args: Any, **options: Any) -> None:
        ask = _ask(options)
        prepare_database()
        rows = [_known(slug) for slug in options["backend"]]
        if not 1 <= options["repeat"] <= 1000:
            raise CommandError("--repeat wants a number from 1 to 1000.")
        with Interrupts() as interrupts:
            try:
                with simulator_for([queries.spec_of(row) for row in rows]) as specs:
                    lanes = list(zip(specs, [row.source for row in rows], strict=True))
                    runs = asyncio.run(_compare(ask, lanes, options["repeat"], interrupts))
            except NotStarted as problem:
                raise CommandError(str(problem)) from None
            self._keep_and_print(runs, options)
        if interrupts.number:
            whole = sum(not any(lane.outcome is Outcome.STOPPED for lane in run.lanes) for run in runs)
            raise interrupts.end(f"{whole} of {options['repeat']} comparisons finished")
        failed = [lane for run in runs for lane in run.lanes if lane.outcome is not Outcome.DONE]
        if failed:
            raise CommandError(f"{failed[0].spec.slug}: {failed[0].shortfall or failed[0].outcome}")

    def _keep_and_print(self, runs: list[Run], options: dict[str, Any]) -> None:
        if not writer.flush(FLUSH_S):
            self.stderr.write("The runs could not be saved: the database is locked or not writable.")
        if options["json"]:
            found = [described(run) for run in runs]
            self.stdout.write(json.dumps(found[0] if options["repeat"] == 1 else found, indent=2))
        else:
            for run in runs:
                self._print(run)

    def _print(self, run: Run) -> None:
        for lane in run.lanes:
            figures = lane.turns[-1].figures() if lane.turns else None
            if figures is None:
                continue
            mark = "~" if figures.tokens_source == "estimate" else ""
            roughly = "~" if figures.tpot_estimated else ""
            rate = f"{roughly}{figures.tok_s:.1f}" if figures.tok_s else "n/a"
            self.stdout.write(
                f"{lane.letter} {lane.spec.slug:28} {lane.outcome:10} TTFT {duration(figures.ttft_ms):>8}   "
                f"{rate:>8} tok/s   total {duration(figures.e2e_ms):>8}   {mark}{figures.output_tokens or 'n/a'} tokens"
            )
        if run.verdict is not None:
            self.stdout.write(f"{run.verdict.sentence} {run.verdict.details}".strip())
            for warning in run.verdict.warnings:
                self.stdout.write(f"  ! {warning.short}: {warning.detail}")


def described(run: Run) -> dict[str, Any]:
    """Return a run as JSON: times in ms, raw marks and deltas in ns from the comparison's common start."""
    return {
        "id": run.id,
        "prompt": run.ask.prompt,
        "created_at": run.created_at.isoformat(),
        "verdict": run.verdict.as_dict() if run.verdict else None,
        "lanes": [_described_lane(lane) for lane in run.lanes],
    }


def _described_lane(lane: Lane) -> dict[str, Any]:
    turn = lane.turns[-1] if lane.turns else None
    head = {
        "backend": lane.spec.slug,
        "label": lane.spec.label,
        "model": lane.spec.model,
        "badge": lane.badge,
        "outcome": str(lane.outcome),
        "error": lane.shortfall or None,
        "error_kind": lane.error.kind if lane.error else None,
    }
    if turn is None:
        return head
    return {
        **head,
        **turn.figures().as_dict(),
        "marks_ns": turn.marks.since(lane.origin_ns),
        "deltas_ns": [delta.at_ns - lane.origin_ns for delta in turn.meter.deltas],
        "finish_reason": turn.meter.finish_reason,
        "connection_reused": turn.reused,
        "loop_lag_p99_ms": turn.loop_lag_ns / 1e6 if turn.loop_lag_ns is not None else None,
        "server_times": turn.meter.server_times,
        "truth": truth.as_dict() if (truth := truth_of(turn)) is not None else None,
        "notes": turn.notes,
        "reasoning": "".join(delta.text for delta in turn.meter.deltas if delta.kind == "reasoning"),
        "text": turn.text,
    }


async def _compare(ask: Ask, lanes: list[tuple[BackendSpec, str]], repeat: int, interrupts: Interrupts) -> list[Run]:
    """Return the runs, `repeat` of them unless a signal ends them earlier: then the last one's lanes were stopped."""
    runs: list[Run] = []
    try:
        with interrupts.stopping(lambda: runs[-1].stop()):
            while len(runs) < repeat and not interrupts.number:
                runs.append(Run(ask, entries_for(lanes), asked_by="cli"))
                await runs[-1].execute()
    finally:
        await upstreams.close()
    return runs


def _ask(options: dict[str, Any]) -> Ask:
    prompt, max_tokens = options["prompt"], options["max_tokens"]
    if not prompt.strip():
        raise CommandError("--prompt is empty; say what to ask.")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise CommandError(f"--prompt is too long: at most {MAX_PROMPT_CHARS:,} characters.")
    if max_tokens is not None and not 1 <= max_tokens <= MAX_OUTPUT_TOKENS:
        raise CommandError(f"--max-tokens wants a number from 1 to {MAX_OUTPUT_TOKENS:,}.")
    if len(options["backend"]) > len(LETTERS):
        raise CommandError(f"At most {len(LETTERS)} lanes; {len(options['backend'])} were given.")
    return Ask(prompt=prompt, max_tokens=max_tokens)


def _known(slug: str) -> Any:
    backend = queries.backend(slug)
    if backend is None:
        raise CommandError(f"There is no backend {slug!r}; see: manage.py backend list")
    return backend
