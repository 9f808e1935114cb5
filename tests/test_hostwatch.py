"""A bound is measured again on a busy host only, and patience counts no time in which the host held us up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import hostwatch
from tests.hostwatch import ROUND_S, HostWatch, Patience, measurements

SetHost = Callable[[bool], None]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> SetHost:
    """Let a test say whether the host is busy."""

    def set_host(busy: bool) -> None:
        monkeypatch.setattr(HostWatch, "start", lambda self: self)
        monkeypatch.setattr(HostWatch, "stop", lambda self: setattr(self, "busy", busy))

    return set_host


@pytest.mark.parametrize("needed", [1, 3])
def test_on_a_busy_host_it_is_measured_until_the_bounds_are_met(needed: int, host: SetHost) -> None:
    host(True)
    made = 0
    for measurement in measurements():
        made += 1
        with measurement:
            assert made == needed
    assert made == needed


@pytest.mark.parametrize(("busy", "most_s"), [(False, 60), (True, 0)])
def test_a_missed_bound_fails_on_an_idle_host_at_once_and_on_a_busy_one_in_the_end(
    busy: bool, most_s: float, host: SetHost
) -> None:
    host(busy)
    made: list[int] = []

    def measure() -> None:
        for measurement in measurements(most_s):
            made.append(1)
            with measurement:
                raise AssertionError("too late")

    with pytest.raises(AssertionError, match="too late"):
        measure()
    assert len(made) == 1


def test_what_is_no_bound_fails_at_once_however_busy_the_host(host: SetHost) -> None:
    host(True)
    for measurement in measurements():
        with pytest.raises(KeyError), measurement:
            raise KeyError
    assert measurement.over


@pytest.mark.parametrize(("waited_us", "busy"), [(0, False), (10_000_000, True)])
def test_a_host_is_busy_while_its_kernel_says_that_work_waits(
    waited_us: int, busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostwatch, "HELD_UP_S", 60.0)
    monkeypatch.setattr(hostwatch, "PRESSURE", tmp_path / "cpu")
    monkeypatch.setattr(hostwatch, "STAT", tmp_path / "stat")
    hostwatch.STAT.write_text("cpu  9 9 9 9 9 9 9 0 0 0\n")
    hostwatch.PRESSURE.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n")
    watch = HostWatch().start()
    time.sleep(0.01)
    hostwatch.PRESSURE.write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={5 + waited_us}\n")
    watch.stop()
    assert watch.busy is busy


def test_a_host_whose_kernel_does_not_tell_is_busy_where_it_lets_us_oversleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostwatch, "PRESSURE", tmp_path / "none")
    for held_up_s, busy in ((-1.0, True), (60.0, False)):
        monkeypatch.setattr(hostwatch, "HELD_UP_S", held_up_s)
        watch = HostWatch().start()
        time.sleep(0.01)
        watch.stop()
        assert watch.busy is busy


def test_patience_counts_what_passed_but_no_round_in_full_in_which_the_host_held_us_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(hostwatch.time, "monotonic", lambda: now_s[0])
    patience = Patience(0.1)
    for passed_s, left in ((0.02, True), (3600.0, True), (0.02, True), (0.02, False)):
        now_s[0] += passed_s
        assert patience.left is left, ROUND_S
