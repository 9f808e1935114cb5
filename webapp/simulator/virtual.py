"""Drive an engine in virtual time: as fast as the processor goes, with nobody waiting.

For tests, the calibration and the validation. Arrivals are a list, or a closed loop in which every user asks again when
answered. Pure: no clock, no I/O.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from random import Random

from webapp.simulator.engine import Ask, Engine, Step
from webapp.simulator.front_end import FrontEnd


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A request to come."""

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(slots=True)
class Record:
    """One request as its client sees it: times from the start of the run, the front end's time included."""

    ask: Ask
    first_ns: int = -1
    last_ns: int = -1
    preemptions: int = 0

    @property
    def ttft_ns(self) -> int:
        return self.first_ns - self.ask.arrived_ns

    @property
    def e2e_ns(self) -> int:
        return self.last_ns - self.ask.arrived_ns

    @property
    def tpot_ns(self) -> float | None:
        """Time per output token after the first; None for an answer of one token."""
        after = self.ask.output_tokens - 1
        return (self.last_ns - self.first_ns) / after if after else None


@dataclass(slots=True)
class Run:
    """What a virtual run did. `records` are the finished requests, in the order in which they finished."""

    records: list[Record] = field(default_factory=list)
    steps: int = 0
    ends_ns: int = 0


Follow = Callable[[Record], Arrival | None]
Watch = Callable[[Step], None]
Lengths = Iterator[tuple[int, ...]]
"""(prompt tokens, output tokens), without end; a third number is what of the prompt is in the KV cache already."""


def run_virtual(
    engine: Engine,
    arrivals: Iterable[Arrival],
    follow: Follow | None = None,
    api_ns: int = 0,
    watch: Watch | None = None,
    enough: int | None = None,
    front: FrontEnd | None = None,
) -> Run:
    """Serve `arrivals` and whatever `follow` makes of each finished request, until nothing is left.

    `api_ns` is what HTTP, tokenising and so on add before a token is seen, `front` the part of them that makes others
    wait. `watch` is called with every step; after `enough` finished requests the run ends, with whatever is under way.
    Raises Refused for a request that cannot fit.
    """
    run, front = Run(), front or FrontEnd()
    coming = list(arrivals)
    heapify(coming)
    taken_in: deque[tuple[int, Arrival]] = deque()  # with the time at which each reaches the engine
    ids = count()
    flying: dict[int, Record] = {}

    def take_in(until_ns: int) -> None:
        while coming and coming[0].at_ns <= until_ns:
            arrival = heappop(coming)
            taken_in.append((front.take_in(arrival.at_ns), arrival))

    while (coming or taken_in or engine.running or engine.waiting) and (enough is None or len(run.records) < enough):
        now_ns = engine.free_ns
        if not engine.running and not engine.waiting:
            if not taken_in:
                take_in(coming[0].at_ns)
            now_ns = max(now_ns, taken_in[0][0])
        take_in(now_ns)
        while taken_in and taken_in[0][0] <= now_ns:
            _submit(engine, taken_in.popleft()[1], next(ids), flying)
        step = engine.step(now_ns)
        if step is None:  # submitted, so there is work
            raise AssertionError("an engine with work makes a step")
        run.steps += 1
        take_in(step.ends_ns)  # whoever comes while it lasts comes before its tokens
        out_ns = front.hand_out(step)
        for ask_id in step.started:
            flying[ask_id].first_ns = out_ns.get(ask_id, step.ends_ns) + api_ns
        for ask_id in step.preempted:
            flying[ask_id].preemptions += 1
        for ask_id in step.finished:
            record = flying.pop(ask_id)
            record.last_ns = out_ns.get(ask_id, step.ends_ns) + api_ns
            run.records.append(record)
            again = follow(record) if follow else None
            if again is not None:
                heappush(coming, again)
        if watch:
            watch(step)
    run.ends_ns = engine.free_ns
    return run


def _submit(engine: Engine, arrival: Arrival, ask_id: int, flying: dict[int, Record]) -> None:
    ask = Ask(ask_id, arrival.prompt_tokens, arrival.output_tokens, arrival.cached_tokens, arrival.at_ns)
    engine.submit(ask)
    flying[ask_id] = Record(ask)


def closed_loop(
    engine: Engine,
    arrivals: Iterable[Arrival],
    lengths: Lengths,
    requests: int,
    api_ns: int = 0,
    think_ns: int = 0,
    front: FrontEnd | None = None,
) -> Run:
    """Let one user ask at each of `arrivals`, and again whenever answered, until `requests` are.

    The load is the same to the end: nobody is sent home while the last answers come, which would speed them up.
    """

    def again(record: Record) -> Arrival:
        return Arrival(record.last_ns + think_ns, *next(lengths))

    return run_virtual(engine, arrivals, again, api_ns, enough=requests, front=front)


def all_at_once(users: int, lengths: Lengths) -> list[Arrival]:
    """Return the arrivals of `users` who all press Enter at the same moment."""
    return [Arrival(0, *next(lengths)) for _ in range(users)]


def spread_out(users: int, lengths: Lengths, over_ns: float) -> list[Arrival]:
    """Return the arrivals of `users`, evenly over `over_ns`; over one request's time, that is the steady state."""
    return [Arrival(int(number * over_ns / users), *next(lengths)) for number in range(users)]


def normal_lengths(prompt: int, output: int, deviations: tuple[float, float], seed: int) -> Lengths:
    """Yield lengths without end, normally distributed around the given means, none below 1."""
    random = Random(f"lengths {seed}")

    def draw(mean: int, deviation: float) -> int:
        while (length := int(random.gauss(mean, deviation))) < 1:
            pass
        return length

    while True:
        yield draw(prompt, deviations[0]), draw(output, deviations[1])


def uniform_lengths(prompt: int, output: int, spread: float, seed: int) -> Lengths:
    """Yield lengths without end, evenly between `spread` times the given ones and these; 1: always these."""
    random = Random(f"lengths {seed}")
    while True:
        yield (
            random.randint(max(1, round(prompt * spread)), prompt),
            random.randint(max(1, round(output * spread)), output),
        )
