"""Run one measured row's load through the engine, in virtual time.

A published benchmark starts all users at once and lets each ask about ten times. Its mean time to first token is
therefore one tenth start burst and nine tenths steady state, and so is the one here: both are simulated, the burst
until everybody has a first token, the steady state with arrivals spread over one request's time.
"""

from dataclasses import dataclass
from statistics import fmean

from webapp.simulator.costs import kv_capacity
from webapp.simulator.engine import Ask, Engine, Refused
from webapp.simulator.hardware import Serving
from webapp.simulator.validation.rows import Row
from webapp.simulator.virtual import Lengths, all_at_once, closed_loop, spread_out, uniform_lengths

BURST_SHARE = 0.1
SATURATED_TTFT_MS = 5000.0  # beyond it a run counts as saturated
HOPELESS_NS = 120_000_000_000  # of virtual time, for one start burst


@dataclass(frozen=True, slots=True)
class Expected:
    """What the engine makes of a row, the front end's time left out. None where nothing was simulated."""

    tpot_ms: float | None
    ttft_ms: float | None
    kv_share: float  # of the KV cache, that all users together need on average


def expect(row: Row, serving: Serving, burst_share: float = BURST_SHARE) -> Expected:
    """Simulate the row's load; `burst_share` is the share of its requests that met the start burst."""
    prompt, output = row.mean_tokens
    grown = output if serving.reserves_answers else output / 2  # of the answer, that a resident request takes up
    need = row.users * serving.model.resident(round(prompt + grown))
    kv_share = need / max(1.0, kv_capacity(serving))
    try:
        tpot_ms, ttft_ms = _one_wave(row, serving) if row.recipe.one_wave else _waves(row, serving, burst_share)
    except Refused:
        return Expected(None, None, kv_share)
    return Expected(tpot_ms, ttft_ms, kv_share)


def _lengths(row: Row, seed: int) -> Lengths:
    lengths = uniform_lengths(row.prompt_tokens, row.output_tokens, row.spread, seed)
    return ((prompt, output, prompt - 1) for prompt, output in lengths) if row.recipe.known_prompts else lengths


def _one_wave(row: Row, serving: Serving) -> tuple[float, float]:
    lengths = _lengths(row, 1)
    run = closed_loop(Engine(serving), all_at_once(row.users, lengths), lengths, row.users)
    ttft_ns = fmean(record.ttft_ns for record in run.records)
    return fmean(record.tpot_ns or 0.0 for record in run.records) / 1e6, ttft_ns / 1e6


def _waves(row: Row, serving: Serving, burst_share: float) -> tuple[float, float]:
    lengths = _lengths(row, 1)
    alone = closed_loop(Engine(serving), all_at_once(1, lengths), lengths, 1).records[0].e2e_ns
    run = closed_loop(Engine(serving), spread_out(row.users, lengths, alone), lengths, 2 * row.users)
    steady = run.records[row.users :]
    ttft_ms = fmean(record.ttft_ns for record in steady) / 1e6
    tpot_ms = fmean(record.tpot_ns or 0.0 for record in steady) / 1e6
    if burst_share:
        ttft_ms = burst_share * _burst_ms(row, serving) + (1 - burst_share) * ttft_ms
    return tpot_ms, ttft_ms


def _burst_ms(row: Row, serving: Serving) -> float:
    """Return the mean time to first token when all users ask at once."""
    engine, lengths = Engine(serving), _lengths(row, 2)
    for number in range(row.users):
        engine.submit(Ask(number, *next(lengths)))
    firsts: list[int] = []
    while len(firsts) < row.users and engine.free_ns < HOPELESS_NS:
        step = engine.step(0)
        if step is None:
            break
        firsts += [step.ends_ns] * len(step.started)
    firsts += [engine.free_ns] * (row.users - len(firsts))
    return fmean(firsts) / 1e6
