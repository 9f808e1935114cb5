"""What goes into the engine and what comes out of it: asks, steps, and where a request's time went. Values only."""

from dataclasses import dataclass
from typing import NamedTuple

from webapp.simulator.costs import Split

NOTHING = Split(0, 0, 0, 0, 0, 0)


class Refused(ValueError):
    """A request that this machine can never serve."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: how long its prompt is, how much of that is in the KV cache already, and what it will produce."""

    id: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    arrived_ns: int = 0

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ValueError(f"a request has at least one prompt and one output token, unlike {self}")
        if not 0 <= self.cached_tokens <= self.prompt_tokens:
            raise ValueError(f"cached_tokens is part of the prompt, unlike in {self}")


class Step(NamedTuple):
    """One step of the engine. Everything in it becomes visible at `ends_ns`; the split sums to its length."""

    began_ns: int
    ends_ns: int
    emitted: tuple[tuple[int, int], ...]  # (ask id, tokens)
    started: tuple[int, ...]  # asks whose first token this is
    finished: tuple[int, ...]
    admitted: tuple[int, ...]
    preempted: tuple[int, ...]
    split: Split


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """When a request reached the engine, and where its time went since, ns.

    `split` sums the parts of the steps since it was admitted, so that it sums to `prefill_ns` + `decode_ns`.
    """

    arrived_ns: int
    queue_ns: int
    prefill_ns: int
    decode_ns: int
    split: Split


@dataclass(frozen=True, slots=True)
class Timing:
    """When an answer was due, ns: its request's arrival, its first and last token from then on, the engine's view."""

    arrived_ns: int
    first_ns: int
    last_ns: int
    times: RequestTimes

    @property
    def api_ns(self) -> int:
        """From its arrival until it reached the engine: the front end's time, with what it waited there."""
        return self.times.arrived_ns - self.arrived_ns

    @property
    def prompt_ns(self) -> int:
        """From a slot to the first token."""
        return self.first_ns - self.api_ns - self.times.queue_ns

    @property
    def completion_ns(self) -> int:
        """From the first token to the last."""
        return self.last_ns - self.first_ns

    @property
    def hand_out_ns(self) -> int:
        """What the last token waited in the front end after its step."""
        return self.prompt_ns + self.completion_ns - self.times.prefill_ns - self.times.decode_ns


class Sequence:
    """One request inside the engine. `base` + decode steps made = its tokens in the KV cache, while it decodes."""

    __slots__ = (
        "admitted_ns",
        "ask",
        "base",
        "before",
        "done_ns",
        "ends",
        "first_ns",
        "left",
        "produced",
        "prompt",
        "widens",
    )

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.prompt = ask.prompt_tokens  # after a preemption what it had produced as well
        self.left = max(1, ask.prompt_tokens - ask.cached_tokens)  # prompt tokens still to be computed
        self.produced = 0
        self.base = 0
        self.ends = -1  # the decode step that yields its last token; -1: it does not decode
        self.widens = -1  # the decode step after which it exceeds the attention window; -1: it has, or there is none
        self.admitted_ns = self.first_ns = self.done_ns = -1
        self.before: Split | None = None  # the engine's totals at its admission

    def times(self, now_ns: int, totals: Split) -> RequestTimes:
        """Return where its time went until `now_ns`, when the engine's totals are `totals`."""
        arrived_ns, now_ns = self.ask.arrived_ns, self.done_ns if self.done_ns >= 0 else now_ns
        if self.before is None:
            return RequestTimes(arrived_ns, max(0, now_ns - arrived_ns), 0, 0, NOTHING)
        first_ns = self.first_ns if self.first_ns >= 0 else max(now_ns, self.admitted_ns)
        parts = Split(*(late - early for early, late in zip(self.before, totals, strict=True)))
        queue_ns, prefill_ns = self.admitted_ns - arrived_ns, first_ns - self.admitted_ns
        return RequestTimes(arrived_ns, queue_ns, prefill_ns, now_ns - first_ns, parts)
