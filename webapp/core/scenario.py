"""A prepared demonstration: the steps that every lane takes, and the figure it is about. Data: webapp/scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FIGURES = ("chat", "caption_lag", "agent", "voice", "code")
KEYS = range(1, 10)
PREVIOUS = "{previous}"


@dataclass(frozen=True, slots=True)
class Step:
    """One request of a scenario.

    It leaves no earlier than `due_s` seconds after the start (text that is being spoken), and `tool_ms` after the
    step before it ended (a tool call of fixed length). `{previous}` in the prompt stands for the step before's answer.
    """

    prompt: str
    label: str = ""
    due_s: float = 0.0
    tool_ms: float = 0.0

    def prompt_after(self, previous: str) -> str:
        return self.prompt.replace(PREVIOUS, previous)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`figure` names the read-out it is about; `budget_ms` is the limit it is judged by, 0 for none.

    `key` is the number key that chooses it.
    """

    slug: str
    key: int
    title: str
    blurb: str
    figure: str
    steps: tuple[Step, ...]
    system: str = ""
    max_tokens: int = 400
    budget_ms: float = 0.0


def from_data(data: dict[str, Any]) -> Scenario:
    """Return the scenario that a parsed TOML file describes; ValueError names the field that is wrong."""
    known = {"slug", "key", "title", "blurb", "figure", "steps", "system", "max_tokens", "budget_ms"}
    if unknown := set(data) - known:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    if missing := {"slug", "key", "title", "blurb", "figure", "steps"} - set(data):
        raise ValueError(f"missing field {sorted(missing)[0]!r}")
    if data["figure"] not in FIGURES:
        raise ValueError(f"field 'figure' is {data['figure']!r}; it wants one of {', '.join(FIGURES)}")
    if data["key"] not in KEYS:
        raise ValueError(f"field 'key' is {data['key']!r}; it wants a number from {KEYS[0]} to {KEYS[-1]}")
    if not data["steps"]:
        raise ValueError("field 'steps' is empty")
    try:
        steps = tuple(Step(**step) for step in data["steps"])
        return Scenario(**{**data, "steps": steps})
    except TypeError as error:
        raise ValueError(f"field 'steps': {error}") from None
