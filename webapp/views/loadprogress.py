"""What a load run has found so far: which step is under way, the steps of a search or a sweep, a pair's differences.

The same tables stand on the page of a run that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from webapp.core import chartlanes, charts
from webapp.core.charts import Spec
from webapp.core.generator import VALID
from webapp.core.loadsummary import step_words
from webapp.core.slo import parse, wilson
from webapp.models import LoadRun
from webapp.services import load
from webapp.views.loadwords import kind_of, signed, targets, time_words
from webapp.views.words import NA, count_text

PAIRED = {"ttft": ("TTFT", "ttft"), "tpot": ("TPOT", "tpot"), "e2e": ("Whole answer", "e2e")}
TOLD = {"A faster": "{a} is faster", "B faster": "{b} is faster"}
IN_BRIEF = {
    "A faster": "{a} is faster than {b}",
    "B faster": "{b} is faster than {a}",
    "no difference": "no difference between {a} and {b}",
    "cannot tell": "cannot tell {a} from {b}",
}
LEVELS = {"enough": "good", "too few": "bad"}
MIDDLE, HALF = 50.0, 46.0  # of a drawn interval, in percent of its width


def progress(run: LoadRun) -> dict[str, Any]:
    """Return the context of `load/_progress.html`, also of a run that has ended."""
    if run.state != LoadRun.State.RUNNING:
        return {"running": False, "steps": _steps(run), "pairs": _pairs(run, {})}
    line, table = load.latest(run), _steps(run)
    done = len(table["rows"]) if table else 0
    if table and line.get("step", {}).get("done") == done:
        table["rows"].append(_under_way(run, line))
    if table:
        table["rows"].reverse()  # the newest stays in sight
    found = {"sentence": _sentence(run, line), "steps": table, "pairs": _pairs(run, line)}
    return {"running": True, "stopping": load.is_stopping(run.id), "done": done, **found}


def brief(run: LoadRun) -> str:
    """Say in a line what a search, a sweep or a paired comparison has found, by its backends' letters; "" of any other
    run.
    """
    letters = {target["slug"]: target["letter"] for target in targets(run)}
    found = [f"{letters[slug]}: {_served(entry)}" for slug, entry in run.summary.get("search", {}).items()]
    points = run.summary.get("sweep", ())
    for slug, letter in letters.items():
        if own := [point for point in points if point["backend"] == slug]:
            loads = _span(own, lambda point: f"{point['load']:g}")
            rates = _span(own, lambda point: count_text(point["throughput"]))
            unit = "requests/s" if run.mode == "rate" else "users"
            found.append(f"{letter}: {rates} tok/s of all at {loads} {unit}")
    for pair in run.summary.get("pairs", ()):
        if pair["figure"] != "tpot":
            a, b = letters[pair["a"]], letters[pair["b"]]
            found.append(f"{PAIRED[pair['figure']][0]}: {IN_BRIEF[pair['result']].format(a=a, b=b)}")
    return f"{'; '.join(found)}." if found else ""


def _served(entry: Mapping[str, Any]) -> str:
    """Say how many users a search has found."""
    failed = entry.get("first_failed")
    if not entry["users"]:
        return "not measurable" if failed is None else f"not even {_users(failed)}"
    return f"{'at least ' if failed is None else ''}{_users(entry['users'])}"


def _users(count: int) -> str:
    return step_words("users", count)


def _span(points: Sequence[Mapping[str, Any]], said: Callable[[Mapping[str, Any]], str]) -> str:
    """Return the first to the last of a sweep's points in words, or the one that both are."""
    return " to ".join(dict.fromkeys(said(point) for point in (points[0], points[-1])))


def growing(run: LoadRun) -> Spec | None:
    """Return the chart of a search or a sweep as far as it has come; None of any other run."""
    lanes = chartlanes.lanes({target["slug"]: target["label"] for target in targets(run)})
    if kind_of(run) == "search":
        tried = [step for entry in run.summary.get("search", {}).values() for step in entry["steps"]]
        return charts.attainment_over_load(tried, lanes, parse(run.plan["slo"]).target)
    if kind_of(run) == "sweep":
        return charts.throughput_against_interactivity(run.summary.get("sweep", ()), lanes)
    return None


def _steps(run: LoadRun) -> dict[str, Any] | None:
    """Return the table of a search's or a sweep's steps, None for any other run."""
    if kind_of(run) == "search":
        target = parse(run.plan["slo"]).target
        tried = [step for entry in run.summary.get("search", {}).values() for step in entry["steps"]]
        rows = [_named(run, step["backend"]) | _tried(step, target) for step in tried]
        return {"heads": ("Users", "Good answers", "95 % interval", "Requests"), "rows": rows}
    if kind_of(run) == "sweep":
        unit = "Requests/s" if run.mode == "rate" else "Users"
        rows = [_named(run, point["backend"]) | _point(point) for point in run.summary.get("sweep", ())]
        return {"heads": (unit, "tok/s of one", "tok/s of all", "TTFT p50", "TTFT p95", "Failed"), "rows": rows}
    return None


def _pairs(run: LoadRun, line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a paired comparison has found about each figure, [] for any other run."""
    if kind_of(run) != "ab":
        return []
    letters = {target["slug"]: target["letter"] for target in targets(run)}
    return [_pair(pair, letters) for pair in run.summary.get("pairs") or line.get("pairs", ())]


def _sentence(run: LoadRun, line: Mapping[str, Any]) -> str:
    """Say what is going on right now, and how long it is going to."""
    if load.is_stopping(run.id):
        return "Stopping: nothing more leaves; the results are being written."
    if not line:
        return "Starting the generator…"
    step = line.get("step")
    if step is None:
        return f"{_of(line['t_s'], run.plan['duration_s'])}."
    all_steps = len(run.plan["loads"]) * len(run.plan["targets"])
    count = f"Step {step['number']} of {all_steps}" if all_steps else f"Step {step['number']}"
    left_s = (all_steps - step["number"]) * step["duration_s"] + max(0.0, step["duration_s"] - step["t_s"])
    label = _named(run, step["backend"])["label"]
    good = _good_so_far(line["backends"].get(step["backend"], {})) if kind_of(run) == "search" else ""
    more = f"; about {_seconds(left_s)} left in all" if all_steps > step["number"] else ""
    again = ", tried again" if step["again"] else ""
    load_now = step_words(run.mode, step["load"])
    return f"{count}: {load_now} on {label}{again}, {_of(step['t_s'], step['duration_s'])}{more}.{good}"


def _of(t_s: float, duration_s: float) -> str:
    if t_s >= duration_s:
        return "waiting for the last answers"
    return f"{_seconds(max(0.0, t_s))} of {_seconds(duration_s)}"


def _good_so_far(figures: Mapping[str, Any]) -> str:
    asked = figures.get("asked", 0)
    return f" {figures['good'] / asked:.1%} of {asked} good so far." if asked else ""


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes and rest else f"{minutes} min" if minutes else f"{rest} s"


def _under_way(run: LoadRun, line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of the step that is being made."""
    step = line["step"]
    figures = line["backends"].get(step["backend"], {})
    if kind_of(run) == "search":
        good, asked = figures.get("good", 0), figures.get("asked", 0)
        cells = [f"{step['load']:g}", *_attained(good, asked), count_text(asked)]
    else:
        first = [time_words(figures.get(f"ttft_{name}_ms")) for name in ("p50", "p95")]
        cells = [f"{step['load']:g}", NA, count_text(figures.get("output_tokens_per_s")), *first, NA]
    return {**_named(run, step["backend"]), "cells": cells, "word": "under way", "level": "", "now": True}


def _attained(good: int, asked: int) -> tuple[str, str]:
    if not asked:
        return NA, NA
    low, high = wilson(good, asked)
    return f"{good / asked:.1%}", f"{low:.1%} to {high:.1%}"


def _named(run: LoadRun, slug: str) -> dict[str, Any]:
    """Return a backend of a run with its letter."""
    return next(target for target in targets(run) if target["slug"] == slug)


def _tried(step: Mapping[str, Any], target: float) -> dict[str, Any]:
    """Return the row of one load that a search has tried."""
    word = "enough" if step["attainment"] >= target else "too few"
    if step["limited"] or step["thin"]:
        word = "not measurable"
    cells = [f"{step['load']:g}", f"{step['attainment']:.1%}", f"{step['low']:.1%} to {step['high']:.1%}"]
    return {"cells": [*cells, count_text(step["asked"])], "word": word, "level": LEVELS.get(word, "unknown")}


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of one point of a sweep."""
    valid = point["verdict"] == VALID
    cells = [f"{point['load']:g}", *(count_text(point[name]) for name in ("interactivity", "throughput"))]
    cells += [*(time_words(point[f"ttft_{name}_ms"]) for name in ("p50", "p95")), count_text(point["failed"])]
    return {"cells": cells, "word": "" if valid else "not measurable", "level": "" if valid else "unknown"}


def _pair(pair: Mapping[str, Any], letters: Mapping[str, str]) -> dict[str, Any]:
    a, b = letters[pair["a"]], letters[pair["b"]]
    label, define = PAIRED[pair["figure"]]
    low, high = pair["interval_ms"]
    known = low is not None and high is not None
    return {
        "label": label,
        "define": define,
        "of": f"{a} − {b}",
        "difference": NA if pair["difference_ms"] is None else signed(pair["difference_ms"]),
        "interval": f"{signed(low)} to {signed(high)}" if known else NA,
        "first": NA if pair["p_a_faster"] is None else f"{pair['p_a_faster']:.0%}",
        "n": count_text(pair["n"]),
        "told": TOLD.get(pair["result"], pair["result"]).format(a=a, b=b),
        "sure": pair["result"] in TOLD,
        "drawn": _drawn(low, high, pair["difference_ms"]) if known else None,
    }


def _drawn(low: float, high: float, middle: float) -> dict[str, float]:
    """Return an interval on an axis with zero in its middle, in percent of its width."""
    reach = max(abs(low), abs(high), abs(middle)) or 1.0
    x, end, dot = (round(MIDDLE + HALF * value / reach, 2) for value in (low, high, middle))
    return {"x": x, "width": max(1.0, round(end - x, 2)), "dot": dot}
