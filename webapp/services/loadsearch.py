"""Several runs for one answer: "how many users?", and sweeps over a load. One run after the other, one backend each.

Backends are loaded one at a time, so that none disturbs another's measurement on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from webapp.core import arrivals
from webapp.core.loadplan import CAPS, Plan
from webapp.core.loadstats import wanted
from webapp.core.loadsummary import COMPLETE
from webapp.core.search import Search, Step
from webapp.core.slo import Slo

LONGER = 16.0
SPARE = 2.0
Run = Callable[[Plan, Path], dict[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One of the runs, and where its files are."""

    summary: dict[str, Any]
    folder: Path

    @property
    def charts(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads((self.folder / "charts.json").read_bytes())
        return found


class Parts:
    """Runs plans of one backend each, in folders of their own below `folder`. `stopped`: somebody has had enough."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder, self._run = folder, run
        self.made: list[Part] = []

    def run(self, plan: Plan, load: float) -> Part:
        where = self._folder / f"{safe(plan.slugs[0])}-{load:g}"
        part = Part(self._run(plan, where), where)
        self.made.append(part)
        return part

    @property
    def stopped(self) -> bool:
        return bool(self.made) and self.made[-1].summary["ended"] != COMPLETE


def search(plan: Plan, folder: Path, run: Run, say: Say, most: int) -> dict[str, Any]:
    """Find each backend's number of users under the plan's SLO, and write and return the combined summary.

    `run` runs a plan in a folder and returns its summary. The figures of a backend are those of its best load. One run
    that is stopped ends it all; what had been found is kept.
    """
    found: dict[str, Search] = {}
    best: dict[str, Part] = {}
    parts, limits = Parts(folder, run), plan.limits()
    for target in plan.targets:
        slug, base = target.slug, replace(plan, targets=(target,), mode="users")
        searching = found[slug] = Search(limits, max(1, plan.users), min(most, CAPS.users))
        while not parts.stopped and (users := searching.following()) is not None:
            part = parts.run(replace(base, users=users), users)
            step = _step(part.summary, slug, users, limits)
            while step.thin and not parts.stopped and (longer := _longer(plan, base, step.asked)) != base:
                base = longer
                say(f"{slug}: {users} users, only {step.asked} requests began; again for {base.duration_s:.0f} s")
                part = parts.run(replace(base, users=users), users)
                step = _step(part.summary, slug, users, limits)
            searching.tell(step)
            say(f"{slug}: {users} users, {step.attainment:.1%} of {step.asked} good")
            if slug not in best or searching.low == users:
                best[slug] = part
    answers = {slug: one.as_data(slug) for slug, one in found.items() if one.steps}
    code = 0 if all(one.measurable for one in found.values()) else 4
    if any(not one.low for one in found.values()):
        code = code or 3
    return combined(folder, best, parts, {"search": answers, "exit_code": code})


def sweep(plan: Plan, folder: Path, run: Run, say: Say, loads: Sequence[float]) -> dict[str, Any]:
    """Run each backend at each load (users, or requests per second of an open loop) and return the curve. One run that
    is stopped ends it all; what had been found is kept.
    """
    points: list[dict[str, Any]] = []
    last: dict[str, Part] = {}
    parts = Parts(folder, run)
    for target in plan.targets:
        for load in loads:
            if parts.stopped:
                break
            part = last[target.slug] = parts.run(replace(plan, targets=(target,), **_loaded(plan, load)), load)
            points.append(point(part.summary, target.slug, load))
            say(f"{target.slug}: {load:g}, {points[-1]['throughput'] or 0:.0f} tok/s in all")
    codes = {part.summary["exit_code"] for part in parts.made}
    code = next((wanted for wanted in (1, 4, 3) if wanted in codes), 0)
    limited = [part.summary["generator"] for part in parts.made if part.summary["generator"]["reasons"]]
    more = {"generator": limited[0]} if limited else {}
    return combined(folder, last, parts, {"sweep": points, "exit_code": code, **more})


def point(summary: dict[str, Any], slug: str, load: float) -> dict[str, Any]:
    """Return one point of a sweep's curve."""
    block = summary["backends"][slug]
    tpot = block["tpot_ms"]["p50"]
    return {
        "backend": slug,
        "load": load,
        "interactivity": 1000 / tpot if tpot else None,
        "throughput": block["output_tokens_per_s"],
        "ttft_p50_ms": block["ttft_ms"]["p50"],
        "ttft_p95_ms": block["ttft_ms"]["p95"],
        "attainment": block["attainment"],
        "verdict": block["generator"]["verdict"],
        "failed": block["requests"]["failed"],
    }


def combined(folder: Path, chosen: Mapping[str, Part], parts: Parts, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return one summary of the same shape as a run's, each backend's block taken from its `chosen` run; write its
    files, with the requests of all runs.
    """
    first = next(iter(chosen.values())).summary
    found: dict[str, Any] = {
        **first,
        "backends": {slug: part.summary["backends"][slug] for slug, part in chosen.items()},
        "ended": parts.made[-1].summary["ended"],
        **more,
    }
    if parts.stopped:
        found["exit_code"] = found["exit_code"] or 4
    found["plan"] = {**first["plan"], "targets": [part.summary["plan"]["targets"][0] for part in chosen.values()]}
    folder.mkdir(parents=True, exist_ok=True)
    distribution = {slug: part.charts.get("distribution", {}).get(slug, {}) for slug, part in chosen.items()}
    (folder / "charts.json").write_bytes(orjson.dumps({"distribution": distribution, "series": []}))
    (folder / "summary.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    for name in ("requests.jsonl", "vllm.json"):
        with open(folder / name, "wb") as whole:
            for path in dict.fromkeys(part.folder / name for part in parts.made):
                if path.exists():  # a run that was killed has left no vllm.json
                    whole.write(path.read_bytes())
    return found


def safe(slug: str) -> str:
    """Return a slug as a folder's name."""
    return slug.replace("#", "-")


def _loaded(plan: Plan, load: float) -> dict[str, Any]:
    if plan.mode != "rate":
        return {"users": round(load)}
    schedule = plan.schedule
    return {"schedule": arrivals.flat(schedule.kind, load, schedule.cv)}


def _step(summary: dict[str, Any], slug: str, users: int, limits: Slo) -> Step:
    block = summary["backends"][slug]
    asked = block["requests"]["asked"]
    good = round((block["attainment"] or 0.0) * asked)
    return Step(users, good, asked, summary["generator"]["verdict"] != "valid", asked < wanted(limits))


def _longer(plan: Plan, base: Plan, asked: int) -> Plan:
    """Return `base` made so long that requests enough should begin within it; at most LONGER times what was planned."""
    wished_s = base.duration_s * max(2.0, SPARE * wanted(plan.limits()) / max(1, asked))
    times = min(wished_s, LONGER * plan.duration_s, plan.caps.duration_s) / base.duration_s
    return replace(
        base,
        duration_s=base.duration_s * times,
        warmup_s=base.warmup_s * times,
        cooldown_s=base.cooldown_s * times,
    )
