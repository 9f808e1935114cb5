"""Kept comparisons and turns: the list, one comparison, one turn, and the recording that the race strip draws."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from webapp import queries
from webapp.core.errors import Outcome
from webapp.models import Badge, Comparison, Turn
from webapp.services import backends
from webapp.services.archive import lane_of, lanes_of, verdict_of
from webapp.services.lanes import Lane
from webapp.services.runs import LETTERS, truth_of
from webapp.services.scenarios import scenarios
from webapp.views import contexts
from webapp.views.follower import FIGURES_ON_WIRE, strip_marks
from webapp.views.operator import is_operator
from webapp.views.readouts import Figure, readout
from webapp.views.words import NA, time_text

PER_PAGE = 20
PROMPT_CHARS = 160


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    page = Paginator(queries.recent_comparisons(), PER_PAGE).get_page(request.GET.get("page"))
    context = {"nav": "runs", "runs": [_summary(row) for row in page], "page_obj": page}
    return render(request, "runs/list.html", context)


@require_safe
def comparison(request: HttpRequest, comparison_id: str) -> HttpResponse:
    row = _comparison(comparison_id)
    lanes = lanes_of(row)
    turns = sorted(row.turns.all(), key=lambda turn: (turn.lane, turn.step))
    first = {turn.lane: turn for turn in reversed(turns)}
    context = {
        "id": row.id,
        "when": row.created_at,
        "prompt": row.prompt,
        "scenario_title": _scenario_title(row),
        "order": row.order,
        "settings": _settings(row.settings),
        "verdict": contexts.verdict_context(verdict_of(row), running=not row.done),
        "lanes": [_lane(row, lane, first[number]) for number, lane in zip(sorted(first), lanes, strict=True)],
        "record_url": reverse("record", args=[row.id]),
        "again_url": _again_url(row, turns),
    }
    page = {"nav": "runs", "comparison": context, "definitions": contexts.definitions()}
    return render(request, "runs/comparison.html", page)


@require_safe
def turn(request: HttpRequest, comparison_id: str, turn_id: str) -> HttpResponse:
    row = queries.turn(turn_id)
    if row is None or row.comparison_id != comparison_id:
        raise Http404("There is no such turn.")
    lane = lane_of(row.comparison, [row])
    messages = row.messages
    context = {
        **_lane(row.comparison, lane, row),
        "id": row.id,
        "when": row.created_at,
        "prompt": next((m.get("content", "") for m in reversed(messages) if m.get("role") == "user"), ""),
        "system": next((m.get("content", "") for m in messages if m.get("role") == "system"), ""),
        "settings": _settings(row.settings),
        "versions": sorted(row.comparison.versions.items()),
        "marks": _marks(row),
        "comparison_url": reverse("comparison", args=[comparison_id]),
        "record_url": reverse("record", args=[comparison_id]) + f"?turn={row.id}",
        "keep_url": reverse("keep", args=[comparison_id, row.id]) if _can_keep(request, row) else "",
    }
    return render(request, "runs/turn.html", {"nav": "runs", "turn": context, "definitions": contexts.definitions()})


@require_POST
def keep(request: HttpRequest, comparison_id: str, turn_id: str) -> HttpResponse:
    """Make a recorded backend of this answer, and show it."""
    row = queries.turn(turn_id)
    if row is None or row.comparison_id != comparison_id:
        raise Http404("There is no such turn.")
    if not is_operator(request):
        raise PermissionDenied("Only the operator may add backends; see the help page.")
    try:
        backends.record(row)
    except ValidationError as error:
        raise PermissionDenied(error.messages[0]) from None
    return redirect("backends")


@require_safe
def record(request: HttpRequest, comparison_id: str) -> JsonResponse:
    """Return every state, delta and figure with its time, µs from the common start, as the race strip replays it."""
    row = _comparison(comparison_id)
    if turn_id := request.GET.get("turn"):
        lanes = [lane_of(row, [found]) for found in row.turns.all() if found.id == turn_id]
    else:
        lanes = lanes_of(row)
    marks = strip_marks(lanes[0].steps if lanes else (), scenarios().get(row.scenario))
    return JsonResponse({"run": row.id, "order": row.order, **marks, "lanes": [_recording(lane) for lane in lanes]})


def _can_keep(request: HttpRequest, row: Turn) -> bool:
    return row.outcome == Outcome.DONE and bool(row.deltas) and row.badge != Badge.RECORDED and is_operator(request)


def _comparison(comparison_id: str) -> Comparison:
    row = queries.comparison(comparison_id)
    if row is None:
        raise Http404("There is no such run.")
    return row


def _summary(row: Comparison) -> dict[str, Any]:
    first: dict[int, Turn] = {}
    last: dict[int, Turn] = {}
    for item in row.turns.all():
        first.setdefault(item.lane, item)
        last[item.lane] = item
    return {
        "url": reverse("comparison", args=[row.id]),
        "when": row.created_at,
        "prompt": row.prompt[:PROMPT_CHARS],
        "scenario_title": _scenario_title(row),
        "order": row.order,
        "verdict": (row.verdict or {}).get("sentence", ""),
        "lanes": [_lane_summary(row, first[number], last[number]) for number in sorted(first)],
    }


def _lane_summary(row: Comparison, first: Turn, last: Turn) -> dict[str, Any]:
    return {
        "letter": LETTERS[first.lane % len(LETTERS)],
        "label": first.label,
        "badge": first.badge,
        "outcome": last.outcome,
        "ttft": _figure("ttft", "TTFT", first.ttft_us),
        "e2e": _figure("e2e", "Total", first.e2e_us if first.step == last.step else None),
        "url": reverse("turn", args=[row.id, first.id]),
    }


def _figure(key: str, label: str, us: int | None) -> Figure:
    text, unit = time_text(None if us is None else us / 1000)
    return Figure(key, label, text, unit)


def _lane(row: Comparison, lane: Lane, first: Turn) -> dict[str, Any]:
    return {
        "letter": lane.letter,
        "label": lane.spec.label,
        "model": lane.spec.model,
        "badge": lane.badge,
        "source": lane.source,
        "outcome": lane.outcome,
        "state": lane.state,
        "error": lane.shortfall,
        "url": reverse("turn", args=[row.id, first.id]),
        "question": row.prompt,
        "readout": readout(lane.id, lane, scenarios().get(row.scenario), 0),
        "answer": contexts.answer(lane.id, lane),
    }


def _recording(lane: Lane) -> dict[str, Any]:
    turn = lane.turns[-1]
    figures, truth = turn.figures().as_dict(), truth_of(turn)
    return {
        "lane": lane.id,
        "letter": lane.letter,
        "label": lane.spec.label,
        "badge": lane.badge,
        "steps": len(lane.steps),
        "states": [[lane.us(state.at_ns), state.name, state.step] for state in lane.states()],
        "d": lane.since(0, lane.delta_count),
        "end_us": lane.us(lane.end_ns) if lane.end_ns is not None else 0,
        "took_us": lane.took_us,
        "outcome": lane.outcome,
        "figures": {name: figures.get(name) for name in FIGURES_ON_WIRE},
        "marks_ns": turn.marks.since(lane.origin_ns),
        "server_times": turn.meter.server_times,
        "loop_lag_p99_ms": turn.loop_lag_ns / 1e6 if turn.loop_lag_ns is not None else None,
        "truth": truth.as_dict() if truth is not None else None,
    }


def _marks(row: Turn) -> list[dict[str, str]]:
    found = []
    for name, at_ns in row.marks_ns.items():
        text = NA if at_ns is None else f"{at_ns / 1e6:.3f} ms"
        found.append({"name": name.replace("_", " "), "text": text})
    return found


def _settings(settings: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), "on" if value is True else str(value))
        for name, value in settings.items()
        if value is not None and value is not False and value != "" and name not in ("system", "prices_usd_per_mtok")
    ]


def _scenario_title(row: Comparison) -> str:
    scenario = scenarios().get(row.scenario)
    return scenario.title if scenario else ""


def _again_url(row: Comparison, turns: list[Turn]) -> str:
    """Return the arena's address with what this run asked filled in, "" while it runs; opening it sends nothing."""
    return f"{reverse('arena')}?{urlencode({'again': row.id})}" if turns else ""
