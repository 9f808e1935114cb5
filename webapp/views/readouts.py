"""A lane's figures as people read them: each gets its text, its unit and the key of its definition here.

Works alike on lanes that run and on lanes made again from stored rows.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from webapp.core.errors import Outcome
from webapp.core.scenario import Scenario
from webapp.core.stats import ENOUGH_FOR, Summary
from webapp.core.timing import NS_PER_MS, Figures
from webapp.services.lanes import Lane
from webapp.services.runs import caption_lags_ms
from webapp.services.turns import LiveTurn
from webapp.views.phases import phases
from webapp.views.words import HUGE, NA, NOT_YET, count_text, time_text

WINDOW_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as it is shown. `weak` where too few samples, or too short a time, stand behind it: it is greyed."""

    key: str
    label: str
    text: str
    unit: str = ""
    estimated: bool = False
    weak: bool = False


def readout(lane_id: str, lane: Lane | None, scenario: Scenario | None, now_ns: int) -> dict[str, Any]:
    """Return the context of `_readout.html`: always the same figures in the same order."""
    turn = shown_turn(lane) if lane is not None else None
    figures = turn.figures() if turn is not None else None
    missing = NA if lane is not None and lane.ended else NOT_YET
    return {
        "id": lane_id,
        "primary": _primary(lane, figures, scenario, now_ns, missing),
        "secondary": _secondary(lane, figures, now_ns, missing),
        "phases": phases(lane, now_ns) if lane is not None else [],
        "server": server_block(turn) if lane is not None and lane.ended and turn is not None else None,
    }


def shown_turn(lane: Lane) -> LiveTurn | None:
    """Return the turn whose figures stand in the lane: the last that was sent; where none was, the last there is."""
    turns = [turn for turn in lane.turns if turn.marks.sent is not None] or lane.turns
    return turns[-1] if turns else None


def _primary(
    lane: Lane | None, figures: Figures | None, scenario: Scenario | None, now_ns: int, missing: str
) -> list[Figure]:
    subject = scenario.figure if scenario else "chat"
    first = _time("ttft", "TTFT", figures.ttft_ms if figures else None, missing)
    if subject == "caption_lag":
        lags = caption_lags_ms(lane) if lane else []
        first = _time("caption_lag", "Caption lag", sum(lags) / len(lags) if lags else None, missing)
    elif subject == "agent":
        done = sum(turn.outcome is Outcome.DONE for turn in lane.turns) if lane else 0
        total = len(lane.steps) if lane else len(scenario.steps) if scenario else 0
        first = Figure("step", "Step", f"{done}/{total}")
    elif subject == "voice":
        first = _time("voice_budget", "First words", figures.ttfo_ms if figures else None, missing)
    return [first, _speed(lane, figures, now_ns, missing), _elapsed(lane, now_ns, missing)]


def _speed(lane: Lane | None, figures: Figures | None, now_ns: int, missing: str) -> Figure:
    if lane is None or figures is None:
        return Figure("tok_s", "tok/s", missing)
    if lane.ended:
        known = figures.tok_s is not None
        estimated = known and figures.tpot_estimated
        return Figure("tok_s", "tok/s", count_text(figures.tok_s), "", estimated, known and figures.short)
    rate = _rate_so_far(lane.turns[-1], now_ns)
    return Figure("tok_s", "tok/s", count_text(rate, missing), "", rate is not None, rate is not None and figures.short)


def _rate_so_far(turn: LiveTurn, now_ns: int) -> float | None:
    """Return the tokens per second from the first token to the newest, estimated until the server has counted."""
    deltas = turn.meter.deltas
    if len(deltas) < 2 or deltas[-1].at_ns == deltas[0].at_ns:
        return None
    tokens, _ = turn.meter.tokens
    return tokens * (len(deltas) - 1) / len(deltas) / ((deltas[-1].at_ns - deltas[0].at_ns) / 1e9)


def _window_rate(turn: LiveTurn, now_ns: int) -> float | None:
    """Return the tokens per second of the last second: chunks in it, times the mean tokens of a chunk so far."""
    deltas = turn.meter.deltas
    if not deltas or now_ns - deltas[0].at_ns < WINDOW_NS:
        return None
    inside = len(deltas) - bisect_left(deltas, now_ns - WINDOW_NS, key=lambda delta: delta.at_ns)
    tokens, _ = turn.meter.tokens
    return inside * tokens / len(deltas)


def _elapsed(lane: Lane | None, now_ns: int, missing: str) -> Figure:
    """Return the lane's time so far from its first request, and its final one once it has ended."""
    sent = lane.turns[0].marks.sent if lane is not None and lane.turns else None
    if lane is None or sent is None:
        return Figure("elapsed", "Elapsed", missing)
    if lane.ended:
        text, unit = time_text(lane.took_us / 1000 if lane.took_us is not None else None)
        return Figure("e2e" if len(lane.steps) == 1 else "elapsed", "Total", text, unit)
    text, unit = time_text((now_ns - sent) / NS_PER_MS)
    return Figure("elapsed", "Elapsed", text, unit)


def _secondary(lane: Lane | None, figures: Figures | None, now_ns: int, missing: str) -> list[Figure]:
    if lane is None or figures is None:
        return [Figure(key, label, missing) for key, label in _SECONDARY]
    ended = lane.ended
    by_usage = figures.tokens_source == "usage"
    gaps = figures.icl_ms if ended else None
    window = None if ended else _window_rate(lane.turns[-1], now_ns)
    tokens = figures.output_tokens
    overall = figures.tok_s_e2e if ended else None
    return [
        _time("ttfo", "TTFO", figures.ttfo_ms, missing),
        _time("thinking", "Thinking", figures.thinking_ms, missing),
        _time("tpot", "TPOT", figures.tpot_ms if ended else None, missing, figures.tpot_estimated, figures.short),
        # Chunks of one read are 0 apart here; how far apart they were sent is not known.
        _time("icl_p50", "Gap p50", (gaps.p50 or None) if gaps else None, missing, weak=_few(gaps, 50)),
        _time("icl_p99", "Gap p99", (gaps.p99 or None) if gaps else None, missing, weak=_few(gaps, 99)),
        Figure("tok_s_window", "tok/s, 1 s", count_text(window, NOT_YET), "", window is not None),
        Figure("tok_s_e2e", "tok/s e2e", count_text(overall, missing), "", overall is not None and not by_usage),
        Figure("output_tokens", "Tokens", count_text(tokens, missing), "", tokens is not None and not by_usage),
        Figure("chunks", "Chunks", count_text(figures.chunks)),
        _per_chunk(figures, missing, by_usage),
        _cost(figures, missing),
    ]


_SECONDARY = (
    ("ttfo", "TTFO"),
    ("thinking", "Thinking"),
    ("tpot", "TPOT"),
    ("icl_p50", "Gap p50"),
    ("icl_p99", "Gap p99"),
    ("tok_s_window", "tok/s, 1 s"),
    ("tok_s_e2e", "tok/s e2e"),
    ("output_tokens", "Tokens"),
    ("chunks", "Chunks"),
    ("tokens_per_chunk", "Per chunk"),
    ("cost", "Cost"),
)


def _time(key: str, label: str, ms: float | None, missing: str, estimated: bool = False, weak: bool = False) -> Figure:
    text, unit = time_text(ms, missing)
    return Figure(key, label, text, unit, estimated and ms is not None, weak and ms is not None)


def _few(gaps: Summary | None, percent: int) -> bool:
    return gaps is not None and gaps.n < ENOUGH_FOR[percent]


def _per_chunk(figures: Figures, missing: str, by_usage: bool) -> Figure:
    if figures.tokens_per_chunk is None:
        return Figure("tokens_per_chunk", "Per chunk", missing)
    per_chunk = figures.tokens_per_chunk
    text = f"{per_chunk:.1f}" if per_chunk < HUGE else count_text(per_chunk)
    return Figure("tokens_per_chunk", "Per chunk", text, "", not by_usage)


def _cost(figures: Figures, missing: str) -> Figure:
    if figures.cost_usd is None:
        return Figure("cost", "Cost", missing)
    cost = figures.cost_usd
    text = f"{cost:.{4 if cost >= 0.001 else 6}f}" if cost < HUGE else count_text(cost)
    return Figure("cost", "Cost", text, "$")


def server_block(turn: LiveTurn) -> dict[str, Any] | None:
    """Return what the server says of its own times, by vendor, as it said it; None where it said nothing."""
    for vendor, times in turn.meter.server_times.items():
        numbers = [(name, value) for name, value in times.items() if isinstance(value, int | float)]
        figures = [_server_figure(name, value) for name, value in numbers[:8]]
        if figures:
            ours = turn.badge == "SIMULATED"
            heading = f"{'The simulator' if ours else vendor} says"
            return {"heading": heading, "vendor": "the simulator" if ours else vendor, "figures": figures}
    return None


def _server_figure(name: str, value: float) -> Figure:
    label = name.replace("_", " ").removesuffix(" ms")
    if name.endswith("_time"):  # Cerebras and Groq: seconds
        return Figure("server", label, *time_text(value * 1000))
    if name.endswith("_ms"):  # llama.cpp: milliseconds
        return Figure("server", label, *time_text(value))
    return Figure("server", label, count_text(value))
