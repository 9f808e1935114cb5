"""The published tables that ship with the project, each held against a served profile."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from webapp.simulator.costs import Load, costs_of
from webapp.simulator.engine import Engine
from webapp.simulator.hardware import Serving
from webapp.simulator.profile import Profile
from webapp.simulator.validation.bench import Way, expect
from webapp.simulator.validation.errors import Compared
from webapp.simulator.validation.fits import Use
from webapp.simulator.validation.recipes import NOTHING_KNOWN
from webapp.simulator.validation.rows import Row
from webapp.simulator.virtual import all_at_once, run_virtual, uniform_lengths

TABLES = Path(__file__).with_name("tables")
FASTEST_LOOK = 4096  # users, beyond which no throughput is looked for


@dataclass(frozen=True, slots=True)
class Point:
    """One published figure and the engine's."""

    what: str
    unit: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.published - 1


@dataclass(frozen=True, slots=True)
class Result:
    """One table. `target` is the mean error that it may have; None where it is shown only."""

    slug: str
    label: str
    source: str
    date: str
    profile: str
    fitted: str  # what of the profile was fitted on it
    target: float | None
    missed: str  # what is not met, and why; "" where there is nothing to say
    points: tuple[Point, ...]
    compared: tuple[Compared, ...] = ()  # the rows measured in a closed loop

    @property
    def errors(self) -> list[float]:
        """Absolute errors of the leading unit, that of the first point; 0.01 is 1 %."""
        return [abs(point.error) for point in self.points if point.unit == self.points[0].unit]

    @property
    def mape(self) -> float:
        """Mean of `errors`."""
        return fmean(self.errors)

    @property
    def median_ape(self) -> float:
        """Median of `errors`."""
        return median(self.errors)

    @property
    def met(self) -> bool:
        return self.target is None or self.mape <= self.target


def results(profiles: Mapping[str, Profile], folder: Path = TABLES) -> list[Result]:
    """Predict every table."""
    return [_result(path, profiles) for path in sorted(folder.glob("*.toml"))]


def _result(path: Path, profiles: Mapping[str, Profile]) -> Result:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    points: list[Point] = []
    compared: list[Compared] = []
    for part in table["parts"]:
        profile = profiles[part["profile"]]
        serving = replace(profile.serving, jitter_sigma=0.0, **part.get("override", {}))
        rows = [dict(zip(part["columns"], row, strict=True)) for row in part["rows"]]
        if part["load"] == "loop":
            compared += [_compared(part, row, serving, profile) for row in rows]
        else:
            points += _LOADS[part["load"]](part, rows, serving)
    return Result(
        slug=path.stem,
        label=table["label"],
        source=table["source"],
        date=table["date"],
        profile=", ".join(dict.fromkeys(part["profile"] for part in table["parts"])),
        fitted=table["fitted"],
        target=table.get("target"),
        missed=table.get("missed", ""),
        points=(*points, *_points(compared)),
        compared=tuple(compared),
    )


def _compared(part: Mapping[str, Any], line: Mapping[str, Any], serving: Serving, profile: Profile) -> Compared:
    """Predict a row that was measured in a closed loop."""
    serving = replace(serving, max_sequences=max(serving.max_sequences, line["users"]))
    row = Row(
        model=serving.model.slug,
        system=serving.machine.slug,
        backend="",
        version="",
        precision=serving.precision,
        devices=serving.devices,
        data_parallel=1,
        users=line["users"],
        prompt_tokens=part["prompt_tokens"],
        output_tokens=part["output_tokens"],
        ttft_ms=line["ttft_ms"],
        tpot_ms=line["tpot_ms"],
        spread=1.0,
        recipe=NOTHING_KNOWN,
        mark="",
    )
    way = _way(part, profile)
    result = expect(row, serving, way)
    ttft_ms = None if result.ttft_ms is None else result.ttft_ms + profile.api_ms - way.api_ms
    return Compared(row, result.tpot_ms, ttft_ms, result.kv_share, _use(part, line["users"]))


def _use(part: Mapping[str, Any], users: int) -> Use:
    if users in part.get("fitted_users", ()):
        return "fitted"
    return "chosen" if part.get("chosen") else "not_fitted"


def _way(part: Mapping[str, Any], profile: Profile) -> Way:
    deviations = (part["prompt_deviation"], part["output_deviation"]) if "prompt_deviation" in part else None
    way = Way(part.get("in_step", False), part.get("answers"), deviations, part.get("speeds", False))
    followed = way.in_step or way.answers is not None  # by each user from the start, as the front end wants it
    return replace(way, api_ms=profile.api_ms, token_us=profile.token_us) if followed and profile.token_us else way


def _points(compared: Sequence[Compared]) -> list[Point]:
    """Return TPOT of every row, then TTFT of those that are not full."""
    points = [
        Point(f"{each.row.users} users", "ms per token", each.row.tpot_ms, each.tpot_ms)
        for each in compared
        if each.tpot_ms is not None
    ]
    for each in compared:
        if each.ttft_ms is not None and not each.saturated and not each.flagged:
            points.append(Point(f"{each.row.users} users", "ms to first token", each.row.ttft_ms, each.ttft_ms))
    return points


def _static(part: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], serving: Serving) -> list[Point]:
    """One batch, all at once: seconds until the last token, or output tokens per second."""
    points = []
    for row in rows:
        batch, prompt, output = row["batch"], row["prompt"], row["output"]
        wide = replace(serving, max_sequences=batch, batch_tokens=max(serving.batch_tokens, 2 * batch))
        lengths = uniform_lengths(prompt, output, 1.0, 1)
        ends_s = run_virtual(Engine(wide), all_at_once(batch, lengths)).ends_ns / 1e9
        what = f"batch {batch}, {prompt}/{output}"
        if "seconds" in row:
            points.append(Point(what, "s for the batch", row["seconds"], ends_s))
        else:
            points.append(Point(what, "tok/s", row["tok_s"], batch * output / ends_s))
    return points


def _per_megawatt(part: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], serving: Serving) -> list[Point]:
    """Tokens per second and MW at a given pace: the best of several sizes of a replica."""
    pace, prompt, output = part["pace_tok_s"], part["prompt_tokens"], part["output_tokens"]
    kw = serving.machine.kw_all_in or 0.0
    best = 0.0
    for devices in part["devices"]:
        wide = replace(serving, devices=devices, max_sequences=FASTEST_LOOK, batch_tokens=2 * FASTEST_LOOK)
        users = _most_users(wide, prompt, output, pace)
        if users:
            best = max(best, users * 1e9 / mean_step_ns(wide, users, prompt, output) / devices * 1000 / kw)
    return [Point(f"{pace:g} tok/s and user", "tok/s per MW", row["tok_s_per_mw"], best) for row in rows]


def mean_step_ns(serving: Serving, users: int, prompt: int, output: int) -> float:
    """Return the mean time of a step in steady closed-loop load, without simulating it.

    Every step has a prompt with a chance of users / output.
    """
    costs, model = costs_of(serving), serving.model
    context = users * model.resident(prompt + output // 2)
    plain = sum(costs.split(Load(users, context, 0, 0.0)))
    mixed = sum(costs.split(Load(users, context, prompt, model.reach(0, prompt))))
    return plain + users / output * (mixed - plain)


def _most_users(serving: Serving, prompt: int, output: int, pace: float) -> int:
    """Return how many users at most get `pace`, 0 where not even one does."""
    low, high = 0, FASTEST_LOOK
    while low < high:
        middle = (low + high + 1) // 2
        if 1e9 / mean_step_ns(serving, middle, prompt, output) >= pace:
            low = middle
        else:
            high = middle - 1
    return low


_LOADS = {"static": _static, "per_megawatt": _per_megawatt}
