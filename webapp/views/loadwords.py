"""Load runs in words: what kind one is, what it is called, how it loads which backends, times as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webapp.core.generator import FLOOR_NS
from webapp.core.loadplan import SERIES
from webapp.core.loadsummary import load_words, series_words
from webapp.core.verdict import duration
from webapp.models import LoadRun
from webapp.services.runs import LETTERS
from webapp.views.words import time_text

TITLES = {"search": "How many users?", "sweep": "Throughput against interactivity", "ab": "A against B"}


def words(run: LoadRun) -> str:
    """Say how a run loads, or has loaded, its backends: one load, or several after each other."""
    tried = [] if run.state == LoadRun.State.RUNNING else sorted(tried_loads(run))
    return series_words(run.plan, tried) if tried else load_words(run.plan)


def kind_of(run: LoadRun) -> str:
    """Return what a run is to find out: one of loadplan.KINDS."""
    return str(run.plan.get("kind", "run"))


def title_of(run: LoadRun) -> str:
    """Return the title that somebody gave a run, else what it asks, else its load."""
    itself = kind_of(run) == "ab" and any("#" in slug for slug in run.backends)
    asked = "A against itself" if itself else TITLES.get(kind_of(run))
    return run.title or asked or words(run).capitalize()


def doubts(line: Mapping[str, Any], lag_ns: int | None) -> list[str]:
    """Return why the times of a live line are not the servers' own, each as one sentence.

    `lag_ns` is how late (p99) the web app ran through which the requests pass, None where they do not.
    """
    found = list(line.get("generator", {}).get("reasons", []))
    if lag_ns is not None and lag_ns > FLOOR_NS:
        found.append(f"The web app that the requests pass through was late by up to {lag_ns / 1e6:.0f} ms (p99).")
    servers = [figures.get("server") or {} for figures in line["backends"].values()]
    late_ms = max((server.get("late_ms") or 0.0 for server in servers), default=0.0)
    if late_ms > FLOOR_NS / 1e6:
        found.append(f"The simulator ran up to {late_ms:.0f} ms behind its schedule.")
    return found


def tried_loads(run: LoadRun) -> set[float]:
    """Return the loads of a sweep or a search, nothing for a single run."""
    search = run.summary.get("search", {})
    steps = [step for entry in search.values() for step in entry["steps"]] or run.summary.get("sweep", [])
    return {step["load"] for step in steps}


def targets(run: LoadRun) -> list[dict[str, str]]:
    """Return a run's backends with their letters."""
    found = run.plan.get("targets", [])
    return [
        {
            "slug": target["slug"],
            "label": target.get("label") or target["slug"],
            "badge": target.get("badge", ""),
            "letter": LETTERS[place % len(LETTERS)],
        }
        for place, target in enumerate(found)
    ]


def label_of(run: LoadRun, slug: str) -> str:
    """Return what one of a run's backends is called."""
    return next((target["label"] for target in targets(run) if target["slug"] == slug), slug)


def steers(run: LoadRun) -> str:
    """Return what of a running load can be changed: "users", "rate" or "" for nothing."""
    if kind_of(run) in SERIES:
        return ""
    if run.mode == "rate":
        return "rate" if run.plan.get("schedule", {}).get("rates") else ""
    return "users" if run.mode == "users" else ""


def signed(ms: float) -> str:
    """Return a difference with its sign, "+1.2 ms"."""
    return f"{'+' if ms >= 0 else '−'}{duration(abs(ms))}"


def time_words(ms: float | None) -> str:
    return " ".join(time_text(ms)).strip()
