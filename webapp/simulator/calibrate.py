"""Solve for what is not on a data sheet from three probes of a real endpoint. Pure.

One user with a short prompt gives the time per layer; one with a long prompt the share of the arithmetic that prefill
reaches; many at once the cost of each further sequence (on a latency machine: the pipeline's slots). The probes are
repeated in virtual time on the engine itself, so that whatever the scheduler does to them is in the solution. What
the probes measured beyond the numbers solved for shows how well the fitted engine fits: that is the profile's error.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from statistics import fmean

from webapp.simulator.engine import Engine
from webapp.simulator.hardware import Serving
from webapp.simulator.virtual import Arrival, run_virtual

ROUNDS = 3  # over the unknowns in turn; they hang on each other only weakly
EXACT = 1e-7  # of the bounds' distance

# Where each unknown is looked for; times are nearly linear in all but the slots.
LAYER_US = (0.0, 5_000.0)
PER_SHARE = (1.0, 50.0)
SEQUENCE_US = (0.0, 2_000.0)
PREFILL_S_TOK = (1e-6, 0.1)
MOST_SLOTS = 2_000
FORECAST_USERS, FORECAST_PROMPT, FORECAST_TOKENS = 256, 500, 100
ENOUGH_SLOTS = 1.05  # many at once, less than this much slower than one: there was a slot for each
UNEXPLAINED = 0.10  # of the crowd's time to the first token

SHORT, LONG, MANY = "short", "long", "many"


@dataclass(frozen=True, slots=True)
class Probe:
    """What one probe asked and measured; means over its users. Times in seconds."""

    name: str
    users: int
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    tpot_s: float
    noise: float = 0.0  # half the range of TPOT over its repetitions, 0.01 is 1 %


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a fitted engine says of a load that nobody has tried. `error` is a share of the TPOT."""

    users: int
    tpot_s: float
    error: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A serving solved for, and how far it misses each figure of each probe, 0.01 is 1 %."""

    serving: Serving
    api_ms: float
    misses: Mapping[str, float]

    @property
    def error(self) -> float:
        """The mean miss."""
        return fmean(abs(miss) for miss in self.misses.values())

    @property
    def worst(self) -> str:
        """The name of the figure that is missed most."""
        return max(self.misses, key=lambda name: abs(self.misses[name]))

    @property
    def explains_crowd(self) -> bool:
        """Whether many at once got their first tokens about when the engine says."""
        return abs(self.misses.get(f"{MANY} TTFT", 0.0)) <= UNEXPLAINED


def predict(serving: Serving, probe: Probe, api_ms: float) -> Probe:
    """Return what the probe would measure on this serving, without noise."""
    engine = Engine(replace(serving, jitter_sigma=0.0))
    arrivals = repeat(Arrival(0, probe.prompt_tokens, probe.output_tokens), probe.users)
    records = run_virtual(engine, arrivals, api_ns=int(api_ms * 1e6)).records
    ttft_s = fmean(record.ttft_ns for record in records) / 1e9
    tpots = [record.tpot_ns for record in records if record.tpot_ns is not None]
    return replace(probe, ttft_s=ttft_s, tpot_s=fmean(tpots) / 1e9 if tpots else 0.0)


def solve(serving: Serving, probes: Sequence[Probe]) -> Fit:
    """Return the serving whose engine gives these probes, one of each name; the rest of `serving` stays as it is."""
    by_name = {probe.name: probe for probe in probes}
    short, long, many = by_name[SHORT], by_name[LONG], by_name[MANY]
    latency = serving.machine.kind == "latency"
    for _ in range(ROUNDS):
        serving = _set(serving, _layer, _tpot_of(short), LAYER_US)
        if latency:
            serving = _set(serving, _prefill_rate, _more_ttft(short, long), PREFILL_S_TOK)
            serving = _with_slots(serving, short, many)
        else:
            serving = _set(serving, _share, _more_ttft(short, long), PER_SHARE)
            serving = _set(serving, _sequence, _more_tpot(short, many), SEQUENCE_US)
    api_ms = max(0.0, (short.ttft_s - predict(serving, short, 0.0).ttft_s) * 1e3)
    return Fit(serving, api_ms, misses(serving, probes, api_ms))


def forecast(fit: Fit, probes: Sequence[Probe], users: int = FORECAST_USERS) -> Forecast:
    """Return TPOT at a load beyond the probes', and how far off it may be.

    The error is how far the forecast moves when the crowded probe moves by its own noise, and the worst TPOT that the
    fit misses, together; and no less than the worst of all misses. A TPOT is missed by little whatever the server is,
    for it is solved from; the crowd's first token is not, and shows what the engine does not explain. What changes
    only beyond the probes (other kernels, a full KV cache) is not in it.
    """
    asked = Probe("", users, FORECAST_PROMPT, FORECAST_TOKENS, 0.0, 0.0)
    tpot_s = predict(fit.serving, asked, 0.0).tpot_s
    moved = [
        abs(predict(solve(fit.serving, _with_noise(probes, sign)).serving, asked, 0.0).tpot_s / tpot_s - 1)
        for sign in (-1, 1)
    ]
    missed = max(abs(miss) for name, miss in fit.misses.items() if name.endswith("TPOT"))
    return Forecast(users, tpot_s, max(max(moved) + missed, abs(fit.misses[fit.worst])))


def _with_noise(probes: Sequence[Probe], sign: int) -> list[Probe]:
    """Return the probes, the crowded one's TPOT moved by its noise, up or down."""
    return [
        replace(probe, tpot_s=probe.tpot_s * (1 + sign * probe.noise)) if probe.name == MANY else probe
        for probe in probes
    ]


def misses(serving: Serving, probes: Sequence[Probe], api_ms: float) -> dict[str, float]:
    """Return how far the serving's engine misses each figure, as a share of what was measured."""
    found = {}
    for probe in probes:
        made = predict(serving, probe, api_ms)
        found[f"{probe.name} TTFT"] = made.ttft_s / probe.ttft_s - 1
        found[f"{probe.name} TPOT"] = made.tpot_s / probe.tpot_s - 1
    return found


# What is solved for: how a serving takes a value of it.

Setter = Callable[[Serving, float], Serving]
Excess = Callable[[Serving], float]
"""How much more a serving gives than was measured."""


def _layer(serving: Serving, value: float) -> Serving:
    return replace(serving, layer_us=value)


def _share(serving: Serving, per_share: float) -> Serving:
    machine, precision = serving.machine, serving.arithmetic or serving.precision
    if precision == "fp4" and machine.fp4_tflops:
        return replace(serving, machine=replace(machine, fp4_share=1 / per_share))
    if precision == "fp8" and machine.fp8_tflops:
        return replace(serving, machine=replace(machine, fp8_share=1 / per_share))
    return replace(serving, machine=replace(machine, bf16_share=1 / per_share))


def _sequence(serving: Serving, value: float) -> Serving:
    return replace(serving, machine=replace(serving.machine, sequence_us=value))


def _prefill_rate(serving: Serving, s_tok: float) -> Serving:
    return replace(serving, prefill_tok_s=1 / s_tok)


def _slots(serving: Serving, slots: int) -> Serving:
    return replace(serving, slots=slots)


def _with_slots(serving: Serving, short: Probe, many: Probe) -> Serving:
    """Solve for the slots; where nobody had to wait, all that is known is that there were enough."""
    if many.tpot_s <= (ENOUGH_SLOTS + many.noise) * short.tpot_s:
        return _slots(serving, max(many.users, serving.slots or serving.model.layers))
    excess = _tpot_of(many)
    few = bisect_left(range(1, MOST_SLOTS), 0.0, key=lambda slots: -excess(_slots(serving, slots)))
    either = (_slots(serving, max(1, few)), _slots(serving, few + 1))  # just too few for that pace, and just enough
    return min(either, key=lambda one: abs(excess(one)))


# Which figure it is solved from.


def _tpot_of(probe: Probe) -> Excess:
    return lambda serving: predict(serving, probe, 0.0).tpot_s - probe.tpot_s


def _more_tpot(few: Probe, many: Probe) -> Excess:
    measured = many.tpot_s - few.tpot_s
    return lambda serving: predict(serving, many, 0.0).tpot_s - predict(serving, few, 0.0).tpot_s - measured


def _more_ttft(short: Probe, long: Probe) -> Excess:
    """The front end's time falls out of the difference."""
    measured = long.ttft_s - short.ttft_s
    return lambda serving: predict(serving, long, 0.0).ttft_s - predict(serving, short, 0.0).ttft_s - measured


def _set(serving: Serving, setter: Setter, excess: Excess, bounds: tuple[float, float]) -> Serving:
    """Return the serving with the value at which nothing is in excess; the nearer bound where there is none.

    By false position, and by halving after a step that has not halved what is left.
    """
    low, high = bounds
    below, above = excess(setter(serving, low)), excess(setter(serving, high))
    if (below > 0) == (above > 0):
        return setter(serving, low if abs(below) < abs(above) else high)
    exact, halve, value = (high - low) * EXACT, False, low
    while high - low > exact:
        left = high - low
        value = (low + high) / 2 if halve else low + left * below / (below - above)
        if min(value - low, high - value) < exact:
            break
        found = excess(setter(serving, value))
        if (found > 0) == (above > 0):
            high, above = value, found
        else:
            low, below = value, found
        halve = not halve and high - low > left / 2
    return setter(serving, value)
