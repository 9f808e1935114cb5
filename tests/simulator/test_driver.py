"""The driver against an engine whose every step is written down, on a clock that stands still."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from tests.simulator.clocks import FakeClock
from tests.simulator.examples import profile
from webapp.simulator.costs import Split
from webapp.simulator.driver import MOST_STEPS, Driver, api_ns, front_end
from webapp.simulator.engine import Ask, Engine, Refused, RequestTimes, Step
from webapp.simulator.front_end import FrontEnd
from webapp.simulator.metrics import Metrics
from webapp.simulator.pacing import Pacer
from webapp.simulator.profile import load_all
from webapp.simulator.virtual import Arrival, run_virtual

MS = 1_000_000
STEP_NS = 10 * MS
SPLIT = Split(1, 0, 0, 0, 0, 0)


class Lockstep:
    """An engine as simple as can be: each step takes 10 ms and gives everybody a token."""

    def __init__(self) -> None:
        self.asks: dict[int, Ask] = {}
        self.left: dict[int, int] = {}
        self.began_ns: list[int] = []
        self.cancelled: list[int] = []
        self.kv_capacity = 1000
        self.free_ns = 0
        self.stuck = 0

    @property
    def running(self) -> int:
        return len(self.left)

    @property
    def waiting(self) -> int:
        return self.stuck

    @property
    def kv_used(self) -> float:
        return 10.0 * len(self.left)

    def submit(self, ask: Ask) -> None:
        if ask.prompt_tokens > self.kv_capacity:
            raise Refused("it does not fit")
        self.asks[ask.id], self.left[ask.id] = ask, ask.output_tokens

    def cancel(self, ask_id: int) -> None:
        if self.left.pop(ask_id, None) is not None:
            self.cancelled.append(ask_id)

    def time_of(self, ask_id: int) -> RequestTimes:
        return RequestTimes(self.asks[ask_id].arrived_ns, 0, STEP_NS, 0, SPLIT)

    def step(self, now_ns: int) -> Step | None:
        if not self.left:
            return None
        began_ns = max(now_ns, self.free_ns)
        self.began_ns.append(began_ns)
        self.free_ns = began_ns + STEP_NS
        emitted = tuple((ask_id, 1) for ask_id in self.left)
        for ask_id in self.left:
            self.left[ask_id] -= 1
        finished = tuple(ask_id for ask_id, left in self.left.items() if not left)
        for ask_id in finished:
            del self.left[ask_id]
        return Step(began_ns, self.free_ns, emitted, (), finished, (), (), SPLIT)


@dataclass
class Listener:
    """Writes down what it hears."""

    wants: int = 10**9
    due_ns: list[int] = field(default_factory=list)
    flushed_ns: list[int] = field(default_factory=list)
    times: RequestTimes | None = None
    failure: str = ""

    def feed(self, count: int, due_ns: int) -> bool:
        self.due_ns += [due_ns] * count
        return len(self.due_ns) >= self.wants

    def finish(self, times: RequestTimes) -> None:
        self.times = times

    def flush(self, now_ns: int) -> None:
        self.flushed_ns.append(now_ns)

    def fail(self, message: str) -> None:
        self.failure = message


class Stage:
    """A driver with everything around it."""

    def __init__(self, front: FrontEnd | None = None) -> None:
        self.clock = FakeClock()
        self.engine = Lockstep()
        self.pacer = Pacer(asyncio.get_running_loop(), self.clock.make_alarm, self.clock.now_ns)
        self.metrics = Metrics()
        self.driver = Driver(self.engine, self.pacer, self.metrics, 2, front)  # type: ignore[arg-type]
        self.start_ns = self.clock.at_ns

    def submit(self, after_ns: int, tokens: int, prompt_tokens: int = 5, wants: int = 10**9) -> tuple[int, Listener]:
        listener = Listener(wants)
        return self.driver.submit(self.start_ns + after_ns, prompt_tokens, tokens, listener), listener

    def pass_to(self, after_ns: int) -> None:
        self.clock.advance(self.start_ns + after_ns)

    def ms(self, times_ns: list[int]) -> list[float]:
        return [(at_ns - self.start_ns) / MS for at_ns in times_ns]


@pytest.fixture
async def stage() -> Stage:
    return Stage()


@pytest.fixture
async def through() -> Stage:
    """With a front end that works 2 ms for a request and 3 ms for a token."""
    return Stage(FrontEnd(2 * MS, 3 * MS))


async def test_steps_follow_each_other_from_the_request_on(stage: Stage) -> None:
    _, listener = stage.submit(3 * MS, tokens=4)
    stage.pass_to(100 * MS)
    assert stage.ms(listener.due_ns) == [13, 23, 33, 43]
    assert listener.flushed_ns == listener.due_ns
    assert listener.times is not None


async def test_tokens_that_are_on_time_leave_before_the_next_step_is_computed(stage: Stage) -> None:
    order: list[str] = []
    _, listener = stage.submit(0, tokens=3)
    step, flush = stage.engine.step, listener.flush
    stage.engine.step = lambda now_ns: order.append("step") or step(now_ns)  # type: ignore[method-assign, func-returns-value]
    listener.flush = lambda now_ns: order.append("flush") or flush(now_ns)  # type: ignore[method-assign, func-returns-value]
    stage.pass_to(100 * MS)
    assert order == ["step", "flush", "step", "flush", "step", "flush", "step"]


async def test_a_request_joins_at_the_next_step_boundary(stage: Stage) -> None:
    stage.submit(0, tokens=5)
    stage.pass_to(12 * MS)
    _, second = stage.submit(14 * MS, tokens=2)
    stage.pass_to(100 * MS)
    assert stage.ms(second.due_ns) == [30, 40]


async def test_a_late_host_catches_up_and_shifts_nothing_after_it(stage: Stage) -> None:
    _, listener = stage.submit(0, tokens=10)
    stage.clock.at_ns = stage.start_ns + 47 * MS  # the loop was busy elsewhere
    stage.pass_to(47 * MS)
    assert stage.ms(listener.due_ns) == [10, 20, 30, 40]
    assert stage.ms(listener.flushed_ns) == [47]
    stage.pass_to(200 * MS)
    assert stage.ms(listener.due_ns) == [10 * step for step in range(1, 11)]
    assert stage.ms(listener.flushed_ns)[1:] == [50, 60, 70, 80, 90, 100]


async def test_who_came_while_the_host_was_late_joins_where_it_would_have(stage: Stage) -> None:
    stage.submit(0, tokens=10)
    _, second = stage.submit(14 * MS, tokens=1)
    stage.clock.at_ns = stage.start_ns + 95 * MS
    stage.pass_to(95 * MS)
    assert stage.ms(second.due_ns) == [30]


async def test_one_that_is_far_behind_lets_the_others_in_between(stage: Stage) -> None:
    _, listener = stage.submit(0, tokens=MOST_STEPS * 3)
    stage.clock.at_ns = stage.start_ns + 10_000 * MS
    stage.pass_to(10_000 * MS)
    assert len(stage.clock.rung_ns) == 1
    assert len(listener.due_ns) == MOST_STEPS - 1  # the first round only starts
    stage.pass_to(10_001 * MS)
    assert len(listener.due_ns) == MOST_STEPS * 3


async def test_an_idle_engine_costs_nothing_and_wakes_for_the_next(stage: Stage) -> None:
    stage.submit(0, tokens=1)
    stage.pass_to(50 * MS)
    rung = len(stage.clock.rung_ns)
    stage.pass_to(5000 * MS)
    assert len(stage.clock.rung_ns) == rung
    _, second = stage.submit(5003 * MS, tokens=1)
    stage.pass_to(6000 * MS)
    assert stage.ms(second.due_ns) == [5013]


async def test_an_earlier_request_is_not_held_up_by_a_later_one(stage: Stage) -> None:
    _, late = stage.submit(500 * MS, tokens=1)
    _, early = stage.submit(2 * MS, tokens=1)
    stage.pass_to(1000 * MS)
    assert stage.ms(early.due_ns) == [12]
    assert stage.ms(late.due_ns) == [510]


async def test_one_that_is_cancelled_hears_nothing_more_and_frees_its_place(stage: Stage) -> None:
    first, listener = stage.submit(0, tokens=100)
    _, other = stage.submit(0, tokens=3)
    stage.pass_to(15 * MS)
    stage.driver.cancel(first)
    assert stage.engine.cancelled == [first]
    stage.pass_to(100 * MS)
    assert stage.ms(listener.due_ns) == [10]
    assert len(other.due_ns) == 3
    stage.driver.cancel(first)
    assert stage.engine.cancelled == [first]


async def test_one_that_is_cancelled_on_its_way_never_reaches_the_engine(stage: Stage) -> None:
    first, _ = stage.submit(20 * MS, tokens=1)
    stage.driver.cancel(first)
    stage.pass_to(100 * MS)
    assert not stage.engine.asks


async def test_the_others_come_in_their_order_when_one_on_its_way_is_cancelled(stage: Stage) -> None:
    due_ms = (1, 100, 20, 110, 120, 30, 40)
    sent = {ms: stage.submit(ms * MS, tokens=1) for ms in due_ms}
    stage.driver.cancel(sent[100][0])
    stage.pass_to(1000 * MS)
    ends = {ms: stage.ms(listener.due_ns) for ms, (_, listener) in sent.items() if ms != 100}
    assert ends == {1: [11], 20: [30], 30: [40], 40: [50], 110: [120], 120: [130]}


async def test_requests_that_come_together_reach_the_engine_one_after_another(through: Stage) -> None:
    _, first = through.submit(5 * MS, tokens=2)
    _, second = through.submit(5 * MS, tokens=1)
    through.pass_to(100 * MS)
    assert through.ms([ask.arrived_ns for ask in through.engine.asks.values()]) == [5, 7]
    assert through.ms(first.due_ns) == [18, 28]  # the steps end at 15 and 25
    assert through.ms(second.due_ns) == [31]
    assert first.times is not None
    assert second.times is not None


async def test_tokens_leave_the_front_end_one_after_another(through: Stage) -> None:
    _, first = through.submit(2 * MS, tokens=3)
    _, second = through.submit(0, tokens=2)
    through.pass_to(13 * MS)
    assert through.ms(second.flushed_ns) == [13]
    through.pass_to(100 * MS)
    assert through.ms(second.flushed_ns) == through.ms(second.due_ns) == [13, 23]
    assert through.ms(first.flushed_ns) == through.ms(first.due_ns) == [26, 33, 43]


async def test_a_late_host_hands_out_at_once_what_has_left_the_front_end(through: Stage) -> None:
    _, listener = through.submit(2 * MS, tokens=3)
    through.clock.at_ns = through.start_ns + 26 * MS
    through.pass_to(26 * MS)
    assert through.ms(listener.due_ns) == [15, 25]
    assert through.ms(listener.flushed_ns) == [26]
    through.pass_to(100 * MS)
    assert through.ms(listener.flushed_ns) == [26, 35]


async def test_one_that_is_cancelled_in_the_front_end_never_reaches_the_engine(through: Stage) -> None:
    through.submit(2 * MS, tokens=5)
    through.pass_to(11 * MS)
    number, _ = through.submit(14 * MS, tokens=1)
    _, other = through.submit(14 * MS, tokens=1)
    through.pass_to(13 * MS)  # the end of the first step has let the front end begin with both
    through.driver.cancel(number)
    through.pass_to(100 * MS)
    assert list(through.engine.asks) == [1, 3]
    assert len(other.due_ns) == 1
    assert through.driver.queue_with_one_more() == 0


async def test_a_queue_counts_who_is_on_the_way_but_nobody_who_has_a_slot_to_expect(stage: Stage) -> None:
    assert stage.driver.queue_with_one_more() == 0
    stage.submit(20 * MS, tokens=5)
    assert stage.driver.queue_with_one_more() == 0
    stage.submit(20 * MS, tokens=5)
    assert stage.driver.queue_with_one_more() == 1
    stage.pass_to(35 * MS)
    assert (stage.driver.running, stage.driver.queue_with_one_more()) == (2, 1)


async def test_a_queue_counts_who_found_no_room_in_the_cache(stage: Stage) -> None:
    stage.submit(0, tokens=5)
    stage.engine.stuck = 4
    stage.pass_to(15 * MS)
    assert stage.driver.queue_with_one_more() == 5


async def test_one_that_wants_no_more_is_taken_out_of_the_engine(stage: Stage) -> None:
    number, listener = stage.submit(0, tokens=100, wants=2)
    stage.pass_to(1000 * MS)
    assert stage.ms(listener.due_ns) == [10, 20]
    assert listener.times is not None
    assert stage.engine.cancelled == [number]


async def test_one_that_the_engine_refuses_fails_alone(stage: Stage) -> None:
    _, listener = stage.submit(0, tokens=1, prompt_tokens=5000)
    _, other = stage.submit(0, tokens=1)
    stage.pass_to(100 * MS)
    assert listener.failure == "it does not fit"
    assert len(other.due_ns) == 1


async def test_lateness_is_the_hosts_and_is_counted_as_such(stage: Stage) -> None:
    stage.submit(0, tokens=1)
    stage.clock.at_ns = stage.start_ns + 13 * MS
    stage.pass_to(13 * MS)
    assert stage.metrics.recent(stage.clock.at_ns).latest_ns == 3 * MS


async def test_the_wall_clock_gives_the_trace_of_the_virtual_one() -> None:
    clock = FakeClock()
    serving = profile(jitter_sigma=0.03).serving
    driver = Driver(Engine(serving, 7), Pacer(asyncio.get_running_loop(), clock.make_alarm, clock.now_ns), Metrics(), 1)
    heard = Listener()
    driver.submit(clock.at_ns, 10, 50, heard)
    alone, start_ns = Engine(serving, 7), clock.at_ns
    alone.submit(Ask(1, 10, 50, arrived_ns=start_ns))
    ends = []
    while (step := alone.step(start_ns)) is not None:
        ends += [step.ends_ns] * len(step.emitted)
    clock.advance(start_ns + 1000 * MS)
    assert heard.due_ns == ends


async def test_a_front_end_hands_out_on_the_wall_clock_when_it_does_on_the_virtual_one() -> None:
    clock, users, tokens = FakeClock(), 60, 40
    served = replace(load_all()["h100-llama-8b"], token_us=300.0)  # a step yields more than it can hand out meanwhile
    engine, pacer = Engine(served.serving), Pacer(asyncio.get_running_loop(), clock.make_alarm, clock.now_ns)
    front, start_ns = front_end(served), clock.at_ns
    driver = Driver(engine, pacer, Metrics(), users, front)
    heard = [Listener() for _ in range(users)]
    began_ns = [start_ns + 700_000 * number for number in range(users)]
    for listener, at_ns in zip(heard, began_ns, strict=True):
        driver.submit(at_ns + front.request_ns, 200, tokens, listener)
    clock.advance(start_ns + 10_000 * MS)
    arrivals = [Arrival(at_ns, 200, tokens) for at_ns in began_ns]
    virtual = run_virtual(Engine(served.serving), arrivals, front=front_end(served))
    spans = sorted((record.first_ns, record.last_ns) for record in virtual.records)
    assert sorted((listener.due_ns[0], listener.due_ns[-1]) for listener in heard) == spans
    assert len(set(spans)) == users


def test_the_front_end_takes_the_same_time_for_the_same_seed_and_keeps_its_mean() -> None:
    noisy = profile(api_sigma=0.3)
    drawn = [api_ns(noisy, seed) for seed in range(2000)]
    assert drawn[7] == api_ns(noisy, 7)
    assert len(set(drawn)) > 1900
    assert sum(drawn) / len(drawn) == pytest.approx(5.5e6, rel=0.03)
