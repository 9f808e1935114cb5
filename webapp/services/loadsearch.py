"""Several runs for one answer: "how many users?", and sweeps over a load. One run after the other, one backend each.

Backends are loaded one at a time, so that none disturbs another's measurement on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from webapp.core.loadplan import Plan, Target
from webapp.core.loadstats import wanted
from webapp.core.loadsummary import COMPLETE, described, step_words
from webapp.core.search import Search, Step
from webapp.core.slo import Slo

LONGER = 16.0
SPARE = 2.0
Run = Callable[[Plan, Path], dict[str, Any]]
Say = Callable[[str], None]
Told = Callable[[dict[str, Any]], None]


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
    """Makes the runs of a series, in folders of their own below `folder`, until one has not come to its end."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder, self._run = folder, run
        self.made: list[Part] = []
        self.ended = COMPLETE

    def run(self, plan: Plan, load: float) -> Part | None:
        """Return the run of one backend, None where nothing was measured (any more)."""
        where = self._folder / f"{safe(plan.slugs[0])}-{load:g}"
        summary = self._run(plan, where)
        self.ended = summary["ended"]
        if "backends" not in summary or (self.stopped and not summary["backends"][plan.slugs[0]]["requests"]["asked"]):
            return None
        self.made.append(Part(summary, where))
        return self.made[-1]

    @property
    def stopped(self) -> bool:
        return self.ended != COMPLETE


def series(
    plan: Plan, folder: Path, run: Run, say: Say = lambda _: None, told: Told = lambda _: None
) -> dict[str, Any]:
    """Make all runs of a search or a sweep; write and return the combined summary, {} where nothing was measured.

    `run` runs a plan in a folder and returns its summary, only {"ended": …} where there is none. One run that is
    stopped ends it all; what had been found is kept. After each run `say` gets a line of text and `told` the summary
    of what has been found so far.
    """
    return (_search if plan.kind == "search" else _sweep)(plan, folder, run, say, told)


def _search(plan: Plan, folder: Path, run: Run, say: Say, told: Told) -> dict[str, Any]:
    """Find each backend's number of users under the plan's SLO. The figures of a backend are those of its best load."""
    found: dict[str, Search] = {}
    best: dict[str, Part] = {}
    parts = Parts(folder, run)
    for target in plan.targets:
        slug, searching = target.slug, Search(plan.limits(), plan.users, plan.up_to)
        found[slug] = searching
        base = plan
        while not parts.stopped and (users := searching.following()) is not None:
            part, base = _long_enough(parts, plan, base, target, users, say)
            if part is None:
                break
            step = _step(part.summary, slug, users, plan.limits())
            searching.tell(step)
            say(f"{slug}: {step_words(plan.mode, users)}, {step.attainment:.1%} of {step.asked} good")
            if slug not in best or searching.low == users:
                best[slug] = part
            told(_combined(plan, best, parts, _answers(found)))
    return _written(folder, plan, best, parts, _answers(found))


def _sweep(plan: Plan, folder: Path, run: Run, say: Say, told: Told) -> dict[str, Any]:
    """Run each backend at each of the plan's loads and return the curve."""
    points: list[dict[str, Any]] = []
    last: dict[str, Part] = {}
    parts = Parts(folder, run)
    for target in plan.targets:
        for load in plan.loads:
            if parts.stopped or (part := parts.run(plan.step(target, load), load)) is None:
                break
            last[target.slug] = part
            points.append(point(part.summary, target.slug, load))
            say(f"{target.slug}: {step_words(plan.mode, load)}, {points[-1]['throughput'] or 0:.0f} tok/s in all")
            told(_combined(plan, last, parts, {"sweep": list(points)}))
    codes = {part.summary["exit_code"] for part in parts.made}
    code = next((worst for worst in (1, 4, 3) if worst in codes), 0)
    limited = [part.summary["generator"] for part in parts.made if part.summary["generator"]["reasons"]]
    more = {"generator": limited[0]} if limited else {}
    return _written(folder, plan, last, parts, {"sweep": points, "exit_code": code, **more})


def point(summary: dict[str, Any], slug: str, load: float) -> dict[str, Any]:
    """Return one point of a sweep's curve, and all that was measured at it."""
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
        "figures": block,
    }


def safe(slug: str) -> str:
    """Return a slug as a folder's name."""
    return slug.replace("#", "-")


def _answers(found: Mapping[str, Search]) -> dict[str, Any]:
    """Return what a search adds to a summary."""
    answers = {slug: one.as_data(slug) for slug, one in found.items() if one.steps}
    code = 0 if all(one.measurable for one in found.values()) else 4
    if any(not one.low for one in found.values()):
        code = code or 3
    return {"search": answers, "exit_code": code}


def _combined(plan: Plan, chosen: Mapping[str, Part], parts: Parts, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return one summary of the same shape as a run's, each backend's block taken from its `chosen` run. The times are
    those of all runs together.
    """
    first = next(iter(chosen.values())).summary
    found: dict[str, Any] = {
        **first,
        "backends": {slug: part.summary["backends"][slug] for slug, part in chosen.items()},
        "ended": parts.ended,
        **{name: round(sum(part.summary[name] for part in parts.made), 3) for name in ("duration_s", "measured_s")},
        **more,
    }
    if parts.stopped:
        found["exit_code"] = found["exit_code"] or 4
    targets = [part.summary["plan"]["targets"][0] for part in chosen.values()]
    found["plan"] = {**described(plan), "targets": targets}
    return found


def _written(
    folder: Path, plan: Plan, chosen: Mapping[str, Part], parts: Parts, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the combined summary and write its files, with the requests of all runs."""
    if not chosen:
        return {}
    found = _combined(plan, chosen, parts, more)
    folder.mkdir(parents=True, exist_ok=True)
    distribution = {slug: part.charts.get("distribution", {}).get(slug, {}) for slug, part in chosen.items()}
    (folder / "charts.json").write_bytes(orjson.dumps({"distribution": distribution, "series": []}))
    for name in ("requests.jsonl", "vllm.json"):
        with open(folder / name, "wb") as whole:
            for path in dict.fromkeys(part.folder / name for part in parts.made):
                if path.exists():  # a run that was killed has left no vllm.json
                    whole.write(path.read_bytes())
    (folder / "summary.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return found


def _long_enough(
    parts: Parts, plan: Plan, base: Plan, target: Target, users: int, say: Say
) -> tuple[Part | None, Plan]:
    """Try a number of users, longer and longer while too few requests begin; return the last run, and how `base` was
    lengthened for it.
    """
    part = parts.run(base.step(target, users), users)
    while part is not None and not parts.stopped:
        step = _step(part.summary, target.slug, users, plan.limits())
        if not step.thin or (longer := _longer(plan, base, step.asked)) == base:
            break
        base = longer
        tried = step_words(plan.mode, users)
        say(f"{target.slug}: {tried}, only {step.asked} requests began; again for {base.duration_s:.0f} s")
        part = parts.run(base.step(target, users), users) or part
    return part, base


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
