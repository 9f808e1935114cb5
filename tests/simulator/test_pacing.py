import asyncio
import time
from collections.abc import Callable

import pytest

from tests.simulator.clocks import FakeClock
from webapp.simulator.pacing import FLOOR_NS, Alarm, Appointment, Pacer, ThreadAlarm, TimerfdAlarm

MS = 1_000_000


class Metronome:
    """Wants to be called every `period_ns`, `beats` times, and remembers when it was."""

    def __init__(self, first_ns: int, period_ns: int, beats: int) -> None:
        self.due_ns = [first_ns + beat * period_ns for beat in range(beats)]
        self.called: list[tuple[int, int]] = []  # time, how many beats were due

    def fire(self, now_ns: int) -> int | None:
        due = [at_ns for at_ns in self.due_ns if at_ns <= now_ns]
        self.due_ns = self.due_ns[len(due) :]
        self.called.append((now_ns, len(due)))
        return self.due_ns[0] if self.due_ns else None


def started(pacer: Pacer, *metronomes: Metronome) -> list[Appointment]:
    return [pacer.call(one.due_ns[0], one.fire) for one in metronomes]


def paced(clock: FakeClock) -> Pacer:
    return Pacer(asyncio.get_running_loop(), clock.make_alarm, clock.now_ns)


async def test_everything_happens_exactly_when_it_is_due() -> None:
    clock = FakeClock()
    metronome = Metronome(clock.at_ns + 5 * MS, MS, beats=10)
    due_ns = list(metronome.due_ns)
    started(paced(clock), metronome)
    clock.advance(clock.at_ns + 100 * MS)
    assert metronome.called == [(at_ns, 1) for at_ns in due_ns]


async def test_a_late_tick_catches_up_and_shifts_nothing_after_it() -> None:
    clock = FakeClock()
    metronome = Metronome(clock.at_ns + MS, MS, beats=10)
    due_ns = list(metronome.due_ns)
    started(paced(clock), metronome)
    clock.at_ns = due_ns[3] + 10  # the loop was busy elsewhere
    clock.advance(clock.at_ns)
    clock.advance(clock.at_ns + 100 * MS)
    assert metronome.called[0] == (due_ns[3] + 10, 4)
    assert [at_ns for at_ns, _ in metronome.called[1:]] == due_ns[4:]


class LateClock(FakeClock):
    """Wakes up 40 µs after the alarm, once `latest_ns` after it, and moves on by 1 µs whenever it is read."""

    latest_ns = 40_000

    def now_ns(self) -> int:
        self.at_ns += 1_000
        return self.at_ns

    def ring_late(self, ring: Callable[[], None]) -> Callable[[], None]:
        def late() -> None:
            self.at_ns += self.latest_ns
            self.latest_ns = 40_000
            ring()

        return late

    def make_alarm(self, loop: object, ring: Callable[[], None]) -> FakeClock:
        return super().make_alarm(loop, self.ring_late(ring))


def five_late_beats(most_lead_ns: int) -> tuple[LateClock, Metronome, list[int]]:
    """Let a metronome beat five times on a host that wakes late; return both, and when the beats were due."""
    clock = LateClock()
    pacer = Pacer(asyncio.get_running_loop(), clock.make_alarm, clock.now_ns, most_lead_ns=most_lead_ns)
    metronome = Metronome(clock.at_ns + MS, MS, beats=5)
    due_ns = list(metronome.due_ns)
    started(pacer, metronome)
    clock.advance(clock.at_ns + 10 * MS)
    return clock, metronome, due_ns


async def test_who_is_woken_late_is_woken_sooner_from_then_on_and_awaits_the_rest_awake() -> None:
    clock, metronome, due_ns = five_late_beats(most_lead_ns=100_000)
    late_ns = [called_ns - at_ns for (called_ns, _), at_ns in zip(metronome.called, due_ns, strict=True)]
    assert late_ns[0] > 40_000
    assert all(0 <= late <= 3_000 for late in late_ns[1:])  # never before it is due, and three readings after at most
    assert all(
        50_000 <= at_ns - rung_ns <= 60_000 for at_ns, rung_ns in zip(due_ns[1:], clock.rung_ns[1:], strict=True)
    )


async def test_who_is_woken_later_than_the_longest_lead_is_woken_by_that_much_sooner() -> None:
    clock, metronome, due_ns = five_late_beats(most_lead_ns=30_000)
    assert clock.rung_ns == [due_ns[0], *(at_ns - 30_000 for at_ns in due_ns[1:])]
    late_ns = [called_ns - at_ns for (called_ns, _), at_ns in zip(metronome.called, due_ns, strict=True)]
    assert all(10_000 < late <= 15_000 for late in late_ns[1:])


def rung_before_due(beats: int, period_ns: int, latest_ns: int) -> list[int]:
    """Return how long before each beat the alarm rang, on a host whose first wake-up is its latest, ns."""
    clock = LateClock()
    clock.latest_ns = latest_ns
    pacer = Pacer(asyncio.get_running_loop(), clock.make_alarm, clock.now_ns, most_lead_ns=450_000)
    first_ns, called = clock.at_ns + MS, 0

    def fire(now_ns: int) -> int | None:
        nonlocal called
        called += 1
        return first_ns + called * period_ns if called < beats else None

    pacer.call(first_ns, fire)
    clock.advance(first_ns + beats * period_ns)
    assert called == beats
    return [first_ns + beat * period_ns - rung_ns for beat, rung_ns in enumerate(clock.rung_ns)]


async def test_one_late_wake_up_among_many_is_remembered_and_fades() -> None:
    early_ns = rung_before_due(beats=30_000, period_ns=MS, latest_ns=900_000)
    assert early_ns[0] == 0
    assert 440_000 < early_ns[100] <= 450_000
    assert 350_000 < early_ns[2_000] < early_ns[1_000] < early_ns[100]
    assert 50_000 <= early_ns[-1] <= 60_000


async def test_where_wake_ups_are_later_than_the_next_token_nobody_sleeps() -> None:
    early_ns = rung_before_due(beats=1_000, period_ns=400_000, latest_ns=390_000)
    assert min(early_ns[10:]) > 350_000  # at once after the tick, which takes this clock some readings
    early_ns = rung_before_due(beats=1_000, period_ns=400_000, latest_ns=40_000)
    assert max(early_ns) <= 60_000  # but a host that wakes us in time is slept on


async def test_what_is_not_due_within_the_lead_is_not_awaited_awake() -> None:
    clock = FakeClock()
    pacer = Pacer(asyncio.get_running_loop(), clock.make_alarm, clock.now_ns, most_lead_ns=50_000)
    metronome = Metronome(clock.at_ns + MS, MS, beats=1)
    started(pacer, metronome)
    pacer.tick()  # the clock stands still: awaiting it awake would never end
    assert not metronome.called
    pacer.close()


async def test_ticks_keep_their_distance_and_lose_nothing() -> None:
    clock = FakeClock()
    first_ns = clock.at_ns + MS
    metronomes = [Metronome(first_ns + offset * 7_000, 50_000, beats=100) for offset in range(8)]
    started(paced(clock), *metronomes)
    clock.advance(clock.at_ns + 100 * MS)
    gaps = [later - earlier for earlier, later in zip(clock.rung_ns, clock.rung_ns[1:], strict=False)]
    assert min(gaps) >= FLOOR_NS
    assert all(sum(count for _, count in one.called) == 100 for one in metronomes)
    assert len(clock.rung_ns) < 60  # 800 beats over 5 ms


async def test_an_earlier_appointment_moves_the_alarm_forward() -> None:
    clock = FakeClock()
    pacer = paced(clock)
    start_ns = clock.at_ns
    late, early = Metronome(start_ns + 50 * MS, MS, 1), Metronome(start_ns + 2 * MS, MS, 1)
    started(pacer, late, early)
    clock.advance(start_ns + 2 * MS)
    assert early.called == [(start_ns + 2 * MS, 1)]
    assert not late.called
    clock.advance(start_ns + 50 * MS)
    assert late.called == [(start_ns + 50 * MS, 1)]


async def test_one_that_fails_ends_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    pacer = paced(clock)

    def fail(now_ns: int) -> int | None:
        raise RuntimeError("broken")

    failing = pacer.call(clock.at_ns + MS, fail)
    metronome = Metronome(clock.at_ns + MS, MS, beats=3)
    started(pacer, metronome)
    clock.advance(clock.at_ns + 10 * MS)
    assert len(metronome.called) == 3
    assert failing.fire is None
    assert "broken" in caplog.text


async def test_one_that_is_called_off_is_never_called_again() -> None:
    clock = FakeClock()
    pacer = paced(clock)
    kept, dropped = Metronome(clock.at_ns + MS, MS, beats=3), Metronome(clock.at_ns + MS, MS, beats=3)
    _, appointment = started(pacer, kept, dropped)
    clock.advance(clock.at_ns + MS)
    appointment.fire = None
    clock.advance(clock.at_ns + 10 * MS)
    assert len(kept.called) == 3
    assert len(dropped.called) == 1


async def test_one_that_asks_for_the_past_cannot_hold_up_the_tick() -> None:
    clock = FakeClock()
    calls: list[int] = []

    def greedy(now_ns: int) -> int | None:
        calls.append(now_ns)
        return 0 if len(calls) < 5 else None

    appointment = paced(clock).call(clock.at_ns, greedy)
    clock.advance(clock.at_ns)
    assert len(calls) == 1
    clock.advance(clock.at_ns + MS)
    assert len(calls) == 5
    assert appointment.fire is None


async def test_after_closing_nobody_is_called() -> None:
    clock = FakeClock()
    pacer = paced(clock)
    metronome = Metronome(clock.at_ns + MS, MS, 1)
    started(pacer, metronome)
    pacer.close()
    assert clock.closed
    clock.advance(clock.at_ns + 10 * MS)
    assert not metronome.called


@pytest.mark.parametrize("make_alarm", [TimerfdAlarm, ThreadAlarm])
async def test_a_real_alarm_never_rings_early(
    make_alarm: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Alarm],
) -> None:
    pacer = Pacer(asyncio.get_running_loop(), make_alarm)
    start_ns = time.monotonic_ns()
    metronomes = [Metronome(start_ns + 2 * MS, MS, beats=20), Metronome(start_ns + MS, 3 * MS, beats=5)]
    due_ns = [list(one.due_ns) for one in metronomes]
    appointments = started(pacer, *metronomes)
    async with asyncio.timeout(60):
        while any(appointment.fire for appointment in appointments):
            await asyncio.sleep(0.001)
    pacer.close()
    for one, dues in zip(metronomes, due_ns, strict=True):
        assert sum(count for _, count in one.called) == len(dues)
        assert one.called[0][0] >= dues[0]
        assert all(count > 0 for _, count in one.called)
