"""Why an answer took as long as it did, as the simulator accounts for it, and our figures held against its clock.

Both come with the answer itself (`time_info`); a server that sends neither has no account.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from webapp.services.lanes import Lane
from webapp.services.runs import truth_of
from webapp.services.turns import LiveTurn
from webapp.views.words import NA, time_text

# What the simulator names, in words. A step is shared by all that are being answered in it.
WORDS = {
    "api": "front end",
    "queue": "queue",
    "prefill": "computing prompts",
    "weights": "reading weights",
    "kv": "reading the KV cache",
    "communication": "between chips",
    "sequences": "work per sequence",
    "overhead": "fixed work",
    "hand_out": "handing tokens out",
}
LEAST_SHARE = 0.005  # what rounds to 0 % explains nothing
NAMED = 2  # in the summary


@dataclass(frozen=True, slots=True)
class Part:
    """A cause and its time; `width` in thousandths of the largest part."""

    label: str
    text: str
    percent: str
    width: int


def account(lane: Lane) -> dict[str, Any] | None:
    """Return the context of `_account.html` for an ended lane, None where its server gave no account."""
    seconds: Counter[str] = Counter()
    for turn in lane.turns:
        seconds.update(_seconds(turn))
    total_s = sum(seconds.values())
    if total_s <= 0:
        return None
    largest = max(seconds.values())
    parts = [
        Part(WORDS[name], " ".join(time_text(s * 1000)), f"{s / total_s * 100:.0f} %", round(s / largest * 1000))
        for name, s in seconds.most_common()
        if s / total_s >= LEAST_SHARE
    ]
    return {
        "summary": ", ".join(f"{part.percent} {part.label}" for part in parts[:NAMED]),
        "parts": parts,
        "truth": _truth_words(lane.turns),
    }


def _seconds(turn: LiveTurn) -> dict[str, float]:
    """Return what the simulator says that a turn's time went into."""
    for times in turn.meter.server_times.values():
        parts = times.get("parts")
        if isinstance(parts, dict):
            named = {**parts, "api": times.get("api_time"), "queue": times.get("queue_time")}
            return {name: s for name, s in named.items() if name in WORDS and isinstance(s, int | float) and s > 0}
    return {}


def _truth_words(turns: Sequence[LiveTurn]) -> str:
    """Say how far a single answer's figures are from the simulator's own stamps, and how late those are; "" where that
    is not known.
    """
    truth = truth_of(turns[0]) if len(turns) == 1 else None
    if truth is None:
        return ""
    tpot = NA if truth.tpot_off is None else f"{truth.tpot_off * 100:+.2f} %"
    late = f"its own lateness up to {truth.late_ms:.2f} ms"
    return f"TTFT {_off(truth.ttft_off_ms)} · TPOT {tpot} · total {_off(truth.e2e_off_ms)} · {late}"


def _off(ms: float | None) -> str:
    return NA if ms is None else f"{ms:+.2f} ms"
