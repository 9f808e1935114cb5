"""Several runs for one answer: "how many users?", and sweeps over a load. One run after the other, one backend each.

Backends are loaded one at a time, so that none disturbs another's measurement on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from webapp.core import arrivals
from webapp.core.loadplan import CAPS, Plan
from webapp.core.loadstats import wanted
from webapp.core.search import Search, Step
from webapp.core.slo import Slo

LONGER = 8.0
SPARE = 1.5
Run = Callable[[Plan, Path], dict[str, Any]]
Say = Callable[[str], None]


def search(plan: Plan, folder: Path, run: Run, say: Say, most: int) -> dict[str, Any]:
    """Find each backend's number of users under the plan's SLO, and write and return the combined summary.

    `run` runs a plan in a folder and returns its summary. The figures of a backend are those of its best load.
    """
    found: dict[str, Search] = {}
    best: dict[str, dict[str, Any]] = {}
    limits = plan.limits()

    def tried(base: Plan, users: int) -> tuple[dict[str, Any], Step]:
        slug = base.slugs[0]
        summary = run(replace(base, users=users), folder / f"{safe(slug)}-{users}")
        return summary, _step(summary, slug, users, limits)

    for target in plan.targets:
        slug, base = target.slug, replace(plan, targets=(target,), mode="users")
        searching = found[slug] = Search(limits, max(1, plan.users), min(most, CAPS.users))
        while (users := searching.following()) is not None:
            summary, step = tried(base, users)
            if step.thin and base.duration_s == plan.duration_s:
                base = _long_enough(base, limits, step.asked)
                say(f"{slug}: {users} users, only {step.asked} requests began; again for {base.duration_s:.0f} s")
                summary, step = tried(base, users)
            searching.tell(step)
            say(f"{slug}: {users} users, {step.attainment:.1%} of {step.asked} good")
            if slug not in best or searching.low == users:
                best[slug] = summary
    answers = {slug: one.as_data(slug) for slug, one in found.items()}
    code = 0 if all(one.measurable for one in found.values()) else 4
    if any(not one.low for one in found.values()):
        code = code or 3
    return combined(plan, folder, best, {"search": answers, "exit_code": code})


def sweep(plan: Plan, folder: Path, run: Run, say: Say, loads: Sequence[float]) -> dict[str, Any]:
    """Run each backend at each load (users, or requests per second of an open loop) and return the curve."""
    points: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    every: list[dict[str, Any]] = []
    for target in plan.targets:
        for load in loads:
            one = replace(plan, targets=(target,), **_loaded(plan, load))
            summary = last[target.slug] = run(one, folder / f"{safe(target.slug)}-{load:g}")
            every.append(summary)
            points.append(point(summary, target.slug, load))
            say(f"{target.slug}: {load:g}, {points[-1]['throughput'] or 0:.0f} tok/s in all")
    codes = {summary["exit_code"] for summary in every}
    code = next((wanted for wanted in (1, 4, 3) if wanted in codes), 0)
    limited = [summary["generator"] for summary in every if summary["generator"]["reasons"]]
    more = {"generator": limited[0]} if limited else {}
    return combined(plan, folder, last, {"sweep": points, "exit_code": code, **more})


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


def combined(plan: Plan, folder: Path, parts: dict[str, dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
    """Return one summary of the same shape as a run's, each backend's block taken from its own run; write it too."""
    first = next(iter(parts.values()))
    found: dict[str, Any] = {
        **first,
        "backends": {slug: part["backends"][slug] for slug, part in parts.items()},
        **more,
    }
    found["plan"] = {**first["plan"], "targets": [part["plan"]["targets"][0] for part in parts.values()]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    with open(folder / "requests.jsonl", "wb") as requests, open(folder / "vllm.json", "wb") as vllm:
        for path in sorted(folder.glob("*/requests.jsonl")):
            requests.write(path.read_bytes())
            vllm.write((path.parent / "vllm.json").read_bytes())
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


def _long_enough(plan: Plan, limits: Slo, asked: int) -> Plan:
    """Return a plan made so long that requests enough should begin within it, at most LONGER times."""
    times = min(LONGER, max(2.0, SPARE * wanted(limits) / max(1, asked)))
    return replace(
        plan,
        duration_s=min(plan.caps.duration_s, plan.duration_s * times),
        warmup_s=plan.warmup_s * times,
        cooldown_s=plan.cooldown_s * times,
    )
