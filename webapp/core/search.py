"""How many users? A search for the largest load at which a backend still meets an SLO. Pure: it proposes, it is told.

Doubles until the attainment falls under its target, then halves the distance. Every step's attainment has Wilson's
interval; the answer's own interval reaches from the largest load that surely meets the target to the smallest that
surely does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from webapp.core.loadsummary import step_words
from webapp.core.slo import Slo, wilson

FINE = 0.05  # the distance, as a share of the answer, at which the search is content
MOST_STEPS = 16
TRIES = 3  # steps in which the generator was the limit; a busy machine may pass


@dataclass(frozen=True, slots=True)
class Step:
    """One load that was tried: `good` of `asked` requests met the SLO. `limited`: the generator was the bottleneck;
    `thin`: so few requests began within the measured time that they say nothing.
    """

    users: int
    good: int
    asked: int
    limited: bool = False
    thin: bool = False

    @property
    def attainment(self) -> float:
        return self.good / self.asked if self.asked else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.good, self.asked)


@dataclass(slots=True)
class Search:
    """Ask for `following`, try it, `tell` what came of it; None is the end."""

    slo: Slo
    start: int = 1
    most: int = 256
    steps: list[Step] = field(default_factory=list)

    def following(self) -> int | None:
        """Return the next number of users to try, None where the answer is found."""
        if len(self.steps) >= MOST_STEPS or (self.steps and self.steps[-1].thin):
            return None
        if self.steps and self.steps[-1].limited:
            again = sum(step.limited for step in self.steps) < TRIES
            return self.steps[-1].users if again else None
        low, high = self.low, self.high
        if high is None:
            proposed = min(max(2 * low, self.start), self.most)
            return None if proposed == low else proposed
        if high - low <= max(1, FINE * low):
            return None
        return (low + high) // 2

    def tell(self, step: Step) -> None:
        self.steps.append(step)

    @property
    def low(self) -> int:
        """The largest load that met the target, below any that did not."""
        high = self.high
        met = [step.users for step in self._valid if self._met(step) and (high is None or step.users < high)]
        return max(met, default=0)

    @property
    def high(self) -> int | None:
        """The smallest load that missed the target."""
        return min((step.users for step in self._valid if not self._met(step)), default=None)

    @property
    def interval(self) -> tuple[int, int | None]:
        """The largest load that surely meets the target, and the smallest that surely does not (None: none tried)."""
        target = self.slo.target
        surely = [step.users for step in self._valid if step.interval[0] >= target and step.users <= self.low]
        never = [step.users for step in self._valid if step.interval[1] < target]
        return max(surely, default=0), min(never, default=None)

    def sentence(self, name: str) -> str:
        """Answer in one sentence."""
        share = f"for {self.slo.target:.0%} of requests with {self.slo.sentence}"
        if not self._valid:
            why = "too few requests were answered in time" if self._thin else "the generator itself was the limit"
            return f"{name}: not measurable, {why}."
        if not self.low:
            return f"{name} does not serve even {step_words('users', self._valid[0].users)} {share}."
        least, most = self.interval
        if self.high is None:
            return f"{name} serves at least {step_words('users', self.low)} {share}; {self._why_no_more}."
        above = f"fewer than {most}" if most else "no upper bound found"
        between = f"surely {least}, {above}" if least else f"{above}; too few requests to be sure of less"
        return f"{name} serves {step_words('users', self.low)} ({between}) {share}."

    def as_data(self, slug: str) -> dict[str, Any]:
        least, most = self.interval
        steps = [
            {"backend": slug, "load": step.users, "attainment": step.attainment, "asked": step.asked}
            | {"low": step.interval[0], "high": step.interval[1], "limited": step.limited, "thin": step.thin}
            for step in self.steps
        ]
        answer = {"users": self.low, "low": least, "high": most, "first_failed": self.high}
        return {**answer, "sentence": self.sentence(slug), "steps": steps}

    @property
    def measurable(self) -> bool:
        """Whether any load gave an answer."""
        return bool(self._valid)

    @property
    def _why_no_more(self) -> str:
        if self._thin:
            return "beyond, too few requests were answered in time to tell"
        if self.steps[-1].limited:
            return "beyond, the generator is the limit"
        return "no more were tried"

    @property
    def _thin(self) -> bool:
        """Whether it ended for too few requests."""
        return bool(self.steps) and self.steps[-1].thin

    @property
    def _valid(self) -> list[Step]:
        return [step for step in self.steps if not step.limited and not step.thin]

    def _met(self, step: Step) -> bool:
        return step.attainment >= self.slo.target
