"""What templates are given. Each function builds the context that its template names in its first line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from django.http import HttpRequest
from django.utils.safestring import SafeString

from webapp.clock import now_ns
from webapp.core.spec import BackendSpec
from webapp.core.verdict import Verdict, duration
from webapp.services.arena import MAX_LANES, Arena, Slot
from webapp.services.lanes import Lane
from webapp.services.markdown import to_html
from webapp.services.runs import Ask
from webapp.services.scenarios import scenarios
from webapp.services.writer import writer
from webapp.views.readouts import readout
from webapp.views.why import account

DEFINITIONS = Path(__file__).resolve().parent.parent / "definitions.toml"


@cache
def definitions() -> list[dict[str, str]]:
    """Return every figure's definition, in the order in which the help page shows them."""
    found: list[dict[str, str]] = tomllib.loads(DEFINITIONS.read_text(encoding="utf-8"))["definitions"]
    return found


@cache
def app_version() -> str:
    try:
        return version("splitsecond")
    except PackageNotFoundError:  # run from a clone, not installed
        project = tomllib.loads((DEFINITIONS.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])


def health() -> dict[str, str]:
    """Return the state of this process as the page's dot shows it: whether rows are being saved."""
    if writer.delayed:
        return {"state": "busy", "text": "saving delayed"}
    return {"state": "ok", "text": "saving runs"}


def shared(request: HttpRequest) -> dict[str, Any]:
    """Context processor: what every page has."""
    return {"health": health(), "version": app_version()}


def choices(specs: Sequence[BackendSpec]) -> list[dict[str, str]]:
    return [{"slug": spec.slug, "label": spec.label, "badge": spec.badge} for spec in specs]


def arena_context(arena: Arena, specs: Sequence[BackendSpec]) -> dict[str, Any]:
    return {
        "id": arena.id,
        "run_id": arena.run.id if arena.run else "",
        "version": arena.version,
        "lanes": [lane_context(arena, slot, specs) for slot in arena.slots],
        "can_add": len(arena.slots) < MAX_LANES,
        "max_lanes": MAX_LANES,
    }


def lane_context(arena: Arena, slot: Slot, specs: Sequence[BackendSpec]) -> dict[str, Any]:
    lane, place = slot.lane, arena.slots.index(slot)
    # Once an answer is part of the conversation, it is shown as the current one, not again as history.
    history = slot.history
    if lane is not None and lane.ended and history and history[-1]["content"] == lane.text:
        history = history[:-2]
    return {
        "id": slot.id,
        "letter": arena.letter(slot),
        "label": slot.spec.label,
        "model": slot.spec.model,
        "backend": slot.spec.slug,
        "badge": lane.badge if lane else slot.spec.badge,
        "source": slot.source,
        "choices": choices(specs),
        "first": place == 0,
        "last": place == len(arena.slots) - 1,
        "only": len(arena.slots) == 1,
        "empty": lane is None,
        "state": lane.state if lane else "waiting",
        "error": lane.shortfall if lane else "",
        "history": _history(history),
        "question": arena.ask.prompt if lane else "",
        "readout": readout(slot.id, lane, arena.ask.scenario, now_ns()),
        "answer": answer(slot.id, lane),
    }


def _history(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    pairs = zip(messages[::2], messages[1::2], strict=False)
    return [{"prompt": asked["content"], "html": to_html(said["content"])} for asked, said in pairs]


def answer(lane_id: str, lane: Lane | None) -> dict[str, Any]:
    """Return the context of `_answer.html`: the ended answer as sanitised HTML, or an empty shell."""
    if lane is None or not lane.ended:
        return {
            "id": lane_id,
            "final": False,
            "html": "",
            "reasoning": "",
            "thinking_text": "",
            "steps": [],
            "account": None,
        }
    turns = [
        {
            "label": lane.steps[turn.step].label or f"Step {turn.step + 1}",
            "html": to_html(turn.text),
            "reasoning": "".join(delta.text for delta in turn.meter.deltas if delta.kind == "reasoning"),
        }
        for turn in lane.turns
    ]
    only = turns[0] if len(lane.steps) == 1 and turns else None
    thinking_ms = lane.turns[0].figures().thinking_ms if only else None
    return {
        "id": lane_id,
        "final": True,
        "html": only["html"] if only else SafeString(""),
        "reasoning": only["reasoning"] if only else "",
        "thinking_text": f"thought for {duration(thinking_ms)}" if thinking_ms else "",
        "steps": [] if only else turns,
        "account": account(lane),
    }


def prompt_context(arena: Arena) -> dict[str, Any]:
    ask = arena.ask
    chosen = ask.scenario
    return {
        "text": ask.prompt,
        "scenarios": [
            {
                "slug": item.slug,
                "key": item.key,
                "title": item.title,
                "blurb": item.blurb,
                "selected": chosen is not None and item.slug == chosen.slug,
            }
            for item in scenarios().values()
        ],
        "scenario": chosen.slug if chosen else "",
        "blurb": chosen.blurb if chosen else "",
        "steps": [{"label": step.label, "prompt": step.prompt} for step in ask.steps] if len(ask.steps) > 1 else [],
        "settings": _settings(ask),
        "turn": arena.turn_number,
    }


def _settings(ask: Ask) -> dict[str, Any]:
    numbers = {name: getattr(ask, name) for name in ("max_tokens", "temperature", "top_p", "seed")}
    texts = {name: "" if value is None else str(value) for name, value in numbers.items()}
    return {**texts, "system": ask.system, "full_length": ask.full_length, "cold": ask.cold, "order": ask.order}


def verdict_context(verdict: Verdict | None, running: bool) -> dict[str, Any]:
    state = "running" if running else "final" if verdict else "idle"
    if running or verdict is None:
        return {"state": state, "winner": "", "sentence": "", "details": "", "warnings": [], "skew": ""}
    return {
        "state": state,
        "winner": verdict.winner,
        "sentence": verdict.sentence,
        "details": verdict.details,
        "warnings": [{"short": warn.short, "detail": warn.detail} for warn in verdict.warnings],
        "skew": "" if verdict.skew_ms is None else f"requests left within {duration(verdict.skew_ms)}",
    }


def notice_context(arena: Arena) -> dict[str, str] | None:
    return None if arena.notice is None else {"level": arena.notice[0], "text": arena.notice[1]}


def accuracy_table(table: dict[str, Any]) -> dict[str, Any]:
    """Return a kept validation table with its numbers as people read them."""
    points = [
        {
            "what": point["what"],
            "unit": point["unit"],
            "published": f"{point['published']:.4g}",
            "predicted": f"{point['predicted']:.4g}",
            "error": f"{point['error'] * 100:+.1f} %",
        }
        for point in table["points"]
    ]
    target = table["target"]
    return {
        **table,
        "mape": f"{table['mape'] * 100:.1f} %",
        "median_ape": f"{table['median_ape'] * 100:.1f} %",
        "target": "none set" if target is None else f"{target * 100:.0f} %",
        "points": points,
    }


HELD_OUT = {
    "rows": "rows of configurations that were fitted",
    "configurations": "a configuration that was not",
    "versions": "a version of an engine that was not",
    "machines": "a machine that was not",
}


def accuracy_rows(rows: dict[str, Any]) -> dict[str, Any]:
    """Return what was kept of measured rows that do not ship, as people read it."""
    held = rows["held_out"]
    return {
        **{name: rows[name] for name in ("n", "n_fitted", "n_chosen", "n_not_fitted", "saturated", "saturated_found")},
        "tpot_mape": _share(rows["tpot_mape"]),
        "false_alarm_rate": _share(rows["false_alarm_rate"]),
        "held_out": [{"what": text, "tpot_mape": _share(held[name]["tpot_mape"])} for name, text in HELD_OUT.items()],
    }


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value * 100:.1f} %"


SPEED_WORDS = {"beyond": "well met", "yes": "met", "NO": "missed", "": ""}


def speed_rows(rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the benchmark's kept rows for people; a row that only explains the one above it is `part` of it."""
    return [
        {**row, "met": SPEED_WORDS[row["met"]], "missed": row["met"] == "NO", "part": row["figure"].startswith(" ")}
        for row in rows
    ]
