"""Stored rows made into lanes again, so that one code computes and shows the figures of the live and the kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from webapp.core.deltas import Delta, Deltas
from webapp.core.errors import Outcome, StreamError
from webapp.core.openai import Usage
from webapp.core.scenario import Step
from webapp.core.spec import BackendSpec, PromptSpec
from webapp.core.timing import Marks
from webapp.core.verdict import Verdict, Warn
from webapp.models import Comparison, Turn
from webapp.services.lanes import Lane
from webapp.services.runs import LETTERS, Ask
from webapp.services.scenarios import scenarios
from webapp.services.turns import LiveTurn


def lanes_of(comparison: Comparison) -> list[Lane]:
    """Return the comparison's lanes as they were when they ended, with times from the common start."""
    rows = sorted(comparison.turns.all(), key=lambda row: (row.lane, row.step))
    return [lane_of(comparison, list(group)) for _, group in groupby(rows, key=lambda row: row.lane)]


def lane_of(comparison: Comparison, rows: Sequence[Turn]) -> Lane:
    """Return the lane that these turns, in the order of their steps, were."""
    first = rows[0]
    scenario = scenarios().get(comparison.scenario)
    steps = scenario.steps if scenario and len(scenario.steps) > 1 else (Step(comparison.prompt),)
    if len(steps) <= rows[-1].step:  # the scenario was shortened since
        steps = tuple(Step("") for _ in range(rows[-1].step + 1))
    lane = Lane(
        id=f"lane{first.lane}",
        letter=LETTERS[first.lane % len(LETTERS)],
        spec=_spec(first),
        steps=steps,
        make_prompt=lambda messages: PromptSpec(tuple(messages)),
        source=first.source,
        run_id=comparison.id,
    )
    lane.hold([_turn(row) for row in rows])
    return lane


def verdict_of(comparison: Comparison) -> Verdict | None:
    """Return the verdict as it was given, None where the comparison has none."""
    data = dict(comparison.verdict or {})
    if not data:
        return None
    warnings = tuple(Warn(**warn) for warn in data.pop("warnings", ()))
    return Verdict(**data, warnings=warnings)


def ask_of(comparison: Comparison) -> Ask:
    """Return what the comparison asked; a setting that there was not yet when it ran has its default."""
    scenario = scenarios().get(comparison.scenario)
    ask = Ask(comparison.prompt, scenario=scenario, order=comparison.order)
    return replace(ask, **{name: comparison.settings[name] for name in ask.settings() if name in comparison.settings})


def history_of(turn: Turn) -> list[dict[str, Any]]:
    """Return the conversation that a first turn went on with, without its own prompt and the system prompt."""
    return [message for message in turn.messages if message.get("role") != "system"][:-1]


def _turn(row: Turn) -> LiveTurn:
    turn = LiveTurn(_spec(row), PromptSpec(tuple(row.messages)), step=row.step, id=row.id)
    meter = turn.meter
    meter.marks = Marks(**row.marks_ns)
    meter.deltas = Deltas(Delta(*delta) for delta in row.deltas)
    meter.chars = sum(len(delta.text) for delta in meter.deltas)
    meter.usage = Usage(**row.usage) if row.usage else None
    meter.server_times = row.server_times
    turn.outcome = Outcome(row.outcome)
    turn.reused = row.connection_reused
    turn.notes = list(row.notes)
    turn.loop_lag_ns = row.loop_lag_p99_us * 1000 if row.loop_lag_p99_us is not None else None
    if row.error:
        turn.error = StreamError(row.error_kind, row.error)
    return turn


def _spec(row: Turn) -> BackendSpec:
    prices: dict[str, Any] = row.settings.get("prices_usd_per_mtok") or {}
    return BackendSpec(
        slug=row.backend_slug,
        label=row.label,
        base_url="",
        model=row.model,
        badge=row.badge,
        price_in_usd_per_mtok=prices.get("in"),
        price_out_usd_per_mtok=prices.get("out"),
    )
