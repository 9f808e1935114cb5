"""The model of the machine: when each chunk of an answer is due. Pure: no clock, no I/O.

This one answers as if every user were alone: a time to first token from the prompt's length, then a
steady pace. Whatever takes its place must give a `Plan` as well; pacing and server know nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from random import Random

from webapp.simulator.profile import Profile


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the time of one request goes, in ns from its arrival."""

    api_ns: int
    queue_ns: int
    prompt_ns: int
    step_ns: float  # mean time of one step, which yields one chunk
    jitter_sigma: float
    seed: str

    @property
    def first_ns(self) -> int:
        """When the first chunk is due."""
        return self.api_ns + self.queue_ns + self.prompt_ns

    def steps(self) -> Iterator[int]:
        """Yield the due time of each chunk, without end, the first at `first_ns`."""
        due = float(self.first_ns)
        random = Random(f"steps {self.seed}")
        while True:
            yield int(due)
            due += self.step_ns * lognormal(random, self.jitter_sigma)


def plan(profile: Profile, prompt_tokens: int, seed: int) -> Plan:
    """Make the timetable of one request.

    The same profile, prompt length and seed give the same times. Queueing is nil: one user per machine.
    """
    name = f"{profile.slug} {seed}"
    prompt_s = profile.ttft_base_ms / 1e3 + prompt_tokens / profile.prefill_tok_s
    return Plan(
        api_ns=int(profile.api_ms * 1e6 * lognormal(Random(f"api {name}"), profile.api_sigma)),
        queue_ns=0,
        prompt_ns=int(prompt_s * 1e9),
        step_ns=profile.chunk_tokens / profile.tok_s * 1e9,
        jitter_sigma=profile.jitter_sigma,
        seed=name,
    )


def lognormal(random: Random, sigma: float) -> float:
    """Draw a positive factor whose mean is 1, so that noise does not change the pace."""
    return exp(random.gauss(0.0, sigma) - sigma * sigma / 2) if sigma else 1.0
