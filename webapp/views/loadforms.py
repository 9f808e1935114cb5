"""The form of a new load run, in the drawer and on the list page: its choices, its values, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

from django.http.request import QueryDict

from webapp.core.loadplan import CAPS
from webapp.core.mixes import NAMED
from webapp.core.slo import PRESETS
from webapp.models import Backend, LoadRun
from webapp.services.loadplans import Refusal, Wishes
from webapp.services.scenarios import scenarios
from webapp.views.loadcontexts import WIRES

DRAWER_WARMUP_S = 2.0
MIX_LABELS = {
    "chat": "chat: short questions, 120 tokens",
    "conversation": "conversation: 1k in, 211 out",
    "code": "code: 2k in, 28 out",
    "8k": "8k-token prompts, 200 out",
    "8k-prefix": "8k-token prompts, shared beginning",
    "one-token": "one token",
}
ARRIVALS = (
    ("closed", "closed: ask, read, ask again"),
    ("constant", "constant rate"),
    ("poisson", "Poisson"),
    ("gamma", "bursts (gamma)"),
)
DURATIONS = ((30, "30 s"), (60, "1 min"), (300, "5 min"), (900, "15 min"), (3600, "1 h"))
DEFAULTS = {
    "users": "8", "rate": "2", "cv": "3", "arrival": "closed", "mix": "chat", "duration": "300", "wire": "sse",
    "slo": "", "think": "0", "title": "",
}  # fmt: skip


def form(rows: Sequence[Backend], chosen: Sequence[str], values: Mapping[str, str], error: str = "") -> dict[str, Any]:
    """Return the context of `load/_fields.html`: what can be chosen, and what is."""
    order = {slug: place for place, slug in enumerate(dict.fromkeys(chosen))}
    rows = sorted(rows, key=lambda row: order.get(row.slug, len(order)))  # a run's letters follow the lanes'
    mixes = [(name, MIX_LABELS[name]) for name in NAMED]
    mixes += [(f"scenario:{slug}", f"scenario: {item.title.lower()}") for slug, item in scenarios().items()]
    return {
        "backends": [
            {"slug": row.slug, "label": row.label, "badge": row.badge, "chosen": row.slug in chosen} for row in rows
        ],
        "arrivals": ARRIVALS,
        "mixes": mixes,
        "durations": [(str(seconds), words) for seconds, words in DURATIONS],
        "wires": list(WIRES.items()),
        "slos": list(PRESETS),
        "most_users": CAPS.users // max(1, len(chosen)),
        "value": {**DEFAULTS, **values},
        "error": error,
    }


def values_of(run: LoadRun) -> dict[str, str]:
    """Return the form's values from which a run could be started again."""
    plan = run.plan
    schedule = plan.get("schedule", {})
    rates = [rate for _, rate in schedule.get("rates", [])]
    return {
        "users": str(plan.get("users", 1)),
        "rate": f"{max(rates):g}" if rates else DEFAULTS["rate"],
        "cv": f"{schedule.get('cv', 3):g}" if schedule.get("kind") == "gamma" else DEFAULTS["cv"],
        "arrival": schedule.get("kind", "poisson") if run.mode == "rate" else "closed",
        "mix": plan.get("mix", "chat"),
        "duration": f"{plan.get('duration_s', 300):g}",
        "wire": run.wire,
        "slo": plan.get("slo", ""),
        "think": f"{plan.get('behaviour', {}).get('think_s', 0):g}",
    }


def wishes(post: QueryDict) -> Wishes:
    """Return what a form asks for. Raises Refusal."""
    arrival = post.get("arrival", "closed")
    closed = arrival == "closed"
    return Wishes(
        backends=tuple(dict.fromkeys(post.getlist("backend"))),
        wire=post.get("wire", "sse"),
        users=round(_number(post, "users", "8")) if closed else None,
        rate=None if closed else _number(post, "rate", "2"),
        arrival="" if closed else arrival,
        cv=_number(post, "cv", "3"),
        duration_s=_number(post, "duration", "60"),
        warmup_s=DRAWER_WARMUP_S if "drawer" in post else None,
        cooldown_s=0.0 if "drawer" in post else None,
        mix=post.get("mix", "chat"),
        slo=post.get("slo", "").strip(),
        think_s=_number(post, "think", "0"),
    )


def steering(post: QueryDict) -> dict[str, float]:
    """Return what a slider asks of a running load. Raises Refusal."""
    if "rate" in post:
        return {"rate": max(0.0, _number(post, "rate", ""))}
    return {"users": max(0, round(_number(post, "users", "")))}


def _number(post: QueryDict, name: str, default: str) -> float:
    text = post.get(name, "").strip() or default
    try:
        found = float(text)
    except ValueError:
        found = nan
    if not isfinite(found):
        raise Refusal(f"{name.capitalize()} has to be a number, not {text[:20]!r}.")
    return found
