"""A front end that is one process: what it makes wait, and what a closed loop through it can yield at most."""

from dataclasses import replace
from statistics import fmean

import pytest

from webapp.simulator.engine import Engine, Split, Step
from webapp.simulator.front_end import FrontEnd
from webapp.simulator.profile import load_all
from webapp.simulator.virtual import Arrival, Run, all_at_once, closed_loop, run_virtual, uniform_lengths

SERVING = replace(load_all()["h100-llama-8b"].serving, jitter_sigma=0.0)
REQUEST_NS, TOKEN_NS, OUTPUT = 2_000_000, 100_000, 200
WORK_NS = REQUEST_NS + OUTPUT * TOKEN_NS  # for a request and its answer


def step(ends_ns: int, *emitted: tuple[int, int]) -> Step:
    return Step(0, ends_ns, emitted, (), (), (), (), Split(0, 0, 0, 0, 0, 0))


def loop(users: int, front: FrontEnd, rounds: int = 5, api_ns: int = 0) -> Run:
    lengths = uniform_lengths(200, OUTPUT, 1.0, 1)
    engine = Engine(SERVING)
    return closed_loop(engine, all_at_once(users, lengths), lengths, rounds * users, api_ns, front=front)


def test_requests_that_come_together_are_taken_in_one_after_another() -> None:
    front = FrontEnd(request_ns=10)
    assert [front.take_in(at_ns) for at_ns in (0, 0, 5, 100)] == [10, 20, 30, 110]


def test_tokens_wait_for_requests_and_for_tokens_before_them() -> None:
    front = FrontEnd(request_ns=10, token_ns=3)
    assert front.take_in(0) == 10
    assert front.hand_out(step(4, (1, 1), (2, 2))) == {1: 13, 2: 19}
    assert front.take_in(5) == 29
    assert front.hand_out(step(50, (1, 1))) == {1: 53}


def test_a_lone_request_is_later_by_its_own_work_and_that_of_its_first_token() -> None:
    plain = run_virtual(Engine(SERVING), [Arrival(7, 200, OUTPUT)]).records[0]
    through = run_virtual(Engine(SERVING), [Arrival(7, 200, OUTPUT)], front=FrontEnd(REQUEST_NS, TOKEN_NS)).records[0]
    assert through.ttft_ns == plain.ttft_ns + REQUEST_NS + TOKEN_NS
    assert through.tpot_ns == plain.tpot_ns  # a step takes longer than the work for its token


def test_a_front_end_that_is_full_is_what_sets_the_throughput() -> None:
    """The utilisation law: a closed loop yields no more than one answer for each time its bottleneck works on one."""
    for users in (200, 300):
        records = loop(users, FrontEnd(REQUEST_NS, TOKEN_NS)).records[2 * users :]
        rate = users / fmean(record.e2e_ns for record in records)  # Little's law
        assert rate * WORK_NS == pytest.approx(1.0, abs=0.05)


def test_a_front_end_that_is_not_full_does_not_set_the_throughput() -> None:
    through, plain = (loop(10, front).ends_ns for front in (FrontEnd(REQUEST_NS, TOKEN_NS), FrontEnd()))
    assert through == pytest.approx(plain, rel=0.05)


def test_behind_a_full_front_end_a_first_token_waits_for_everybodys_request() -> None:
    """All are answered at about the same time, and ask again together."""
    for users in (200, 300):
        records = loop(users, FrontEnd(REQUEST_NS, TOKEN_NS)).records[2 * users :]
        assert fmean(record.ttft_ns for record in records) > users * REQUEST_NS


def test_behind_a_front_end_that_is_not_full_users_drift_apart() -> None:
    records = loop(50, FrontEnd(REQUEST_NS, TOKEN_NS), rounds=8).records
    first, last = (fmean(record.ttft_ns for record in part) for part in (records[:50], records[-50:]))
    assert last < 0.6 * first


def test_users_ask_again_when_they_have_seen_the_answer() -> None:
    api_ns = 5_000_000
    first, second = loop(1, FrontEnd(REQUEST_NS, TOKEN_NS), rounds=2, api_ns=api_ns).records
    assert second.ask.arrived_ns == first.last_ns
    assert second.ttft_ns == first.ttft_ns
