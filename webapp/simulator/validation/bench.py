"""Run one measured row's load through the engine, in virtual time.

A published benchmark starts all users at once and lets each ask about ten times. Its mean time to first token is
therefore one tenth start burst and nine tenths steady state, and so is the one here: both are simulated, the burst
until everybody has a first token, the steady state with arrivals spread over one request's time. Where all answers
have one length and only stable windows were measured, users who started together stay in step: that is simulated as
it is, without its first rounds, and through the front end where that is known. Where the source tells how many answers
it counted, those are simulated from the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from webapp.simulator.costs import kv_capacity
from webapp.simulator.engine import Ask, Engine, Refused
from webapp.simulator.front_end import FrontEnd
from webapp.simulator.hardware import Serving
from webapp.simulator.validation.rows import Row
from webapp.simulator.virtual import (
    Lengths,
    Record,
    all_at_once,
    closed_loop,
    normal_lengths,
    spread_out,
    uniform_lengths,
)

BURST_SHARE = 0.1
STEP_ROUNDS, SETTLING_ROUNDS = 5, 2
RUNS = 3  # of which the mean is taken where a few answers of very different lengths were counted
SATURATED_TTFT_MS = 5000.0  # beyond it a run counts as saturated
HOPELESS_SHARE = 10.0  # of the KV cache: a load that needs so much is full, and would take hours to simulate
HOPELESS_NS = 120_000_000_000  # of virtual time, for one start burst


@dataclass(frozen=True, slots=True)
class Way:
    """How a closed loop was run, as far as its source tells.

    `in_step`: users who started together stay so, and only stable windows were measured. `answers`: all began at once,
    and so many answers were counted, from the first on. `deviations`: prompts and answers have normally distributed
    lengths with these standard deviations. `speeds`: the pace is 1 ÷ the mean of the answers' speeds. `token_us`: one
    process took requests in and handed tokens out, with so much work for a token (`FrontEnd`). What is left of
    `api_ms`, the front-end time, made nobody else wait, and who had seen an answer asked again.
    """

    in_step: bool = False
    answers: int | None = None
    deviations: tuple[float, float] | None = None
    speeds: bool = False
    api_ms: float = 0.0
    token_us: float = 0.0


USUAL = Way()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the engine makes of a row, without the front end's time unless `Way` has it. None: nothing was simulated."""

    tpot_ms: float | None
    ttft_ms: float | None
    kv_share: float  # of the KV cache, that all users together need on average


def expect(row: Row, serving: Serving, way: Way = USUAL) -> Expected:
    """Simulate the row's load, as it was run."""
    prompt, output = row.mean_tokens
    grown = output if serving.reserves_answers else output / 2  # of the answer, that a resident request takes up
    need = row.users * serving.model.resident(round(prompt + grown))
    kv_share = need / max(1.0, kv_capacity(serving))
    if kv_share > HOPELESS_SHARE:
        return Expected(None, None, kv_share)
    try:
        tpot_ms, ttft_ms = _measured(row, serving, way)
    except Refused:
        return Expected(None, None, kv_share)
    return Expected(tpot_ms, ttft_ms, kv_share)


def _lengths(row: Row, seed: int, way: Way = USUAL) -> Lengths:
    if way.deviations is not None:
        return normal_lengths(row.prompt_tokens, row.output_tokens, way.deviations, seed)
    lengths = uniform_lengths(row.prompt_tokens, row.output_tokens, row.spread, seed)
    return ((prompt, output, prompt - 1) for prompt, output in lengths) if row.recipe.known_prompts else lengths


def _measured(row: Row, serving: Serving, way: Way) -> tuple[float, float]:
    """Return mean TPOT and TTFT, ms."""
    if row.recipe.one_wave:
        return _means(_from_the_start(row, serving, row.users))
    if way.answers is not None:
        runs = [_from_the_start(row, serving, way.answers, seed, way) for seed in range(1, RUNS + 1)]
        return _means([record for run in runs for record in run], way.speeds)
    if way.in_step:
        return _means(_from_the_start(row, serving, STEP_ROUNDS * row.users, way=way)[SETTLING_ROUNDS * row.users :])
    tpot_ms, ttft_ms = _steady(row, serving)
    return tpot_ms, BURST_SHARE * _burst_ms(row, serving) + (1 - BURST_SHARE) * ttft_ms


def _from_the_start(row: Row, serving: Serving, answers: int, seed: int = 1, way: Way = USUAL) -> list[Record]:
    """Let all begin at once, and return the first answers."""
    lengths = _lengths(row, seed, way)
    front = FrontEnd.of(way.api_ms, way.token_us)
    rest_ns = int(way.api_ms * 1e6) - front.request_ns
    return closed_loop(Engine(serving), all_at_once(row.users, lengths), lengths, answers, rest_ns, front=front).records


def _steady(row: Row, serving: Serving) -> tuple[float, float]:
    """Let users begin one after the other, over one request's time, and leave out the first round."""
    lengths = _lengths(row, 1)
    alone = closed_loop(Engine(serving), all_at_once(1, lengths), lengths, 1).records[0].e2e_ns
    run = closed_loop(Engine(serving), spread_out(row.users, lengths, alone), lengths, 2 * row.users)
    return _means(run.records[row.users :])


def _means(records: Sequence[Record], speeds: bool = False) -> tuple[float, float]:
    paces = [record.tpot_ns or 0.0 for record in records]
    tpot_ns = 1 / fmean(1 / pace for pace in paces if pace) if speeds else fmean(paces)
    return tpot_ns / 1e6, fmean(record.ttft_ns for record in records) / 1e6


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
