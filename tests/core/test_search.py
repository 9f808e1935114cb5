"""The search for the number of users, against backends whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from webapp.core import slo
from webapp.core.search import Search, Step

LIMITS = slo.parse("ttft:500 tpot:50")


def searched(attainment: Callable[[int], float], most: int = 256, asked: int = 400) -> Search:
    search = Search(LIMITS, most=most)
    while (users := search.following()) is not None:
        search.tell(Step(users, round(attainment(users) * asked), asked))
    return search


@pytest.mark.parametrize("capacity", [1, 2, 3, 17, 42, 100, 200])
def test_a_cliff_is_found_within_five_per_cent(capacity: int) -> None:
    search = searched(lambda users: 1.0 if users <= capacity else 0.3)
    assert search.low <= capacity
    assert capacity - search.low <= max(1, 0.05 * capacity)
    assert len(search.steps) <= 16


def test_the_interval_widens_where_attainment_is_near_its_target() -> None:
    gentle = searched(lambda users: max(0.0, 1.0 - users / 1000), asked=100)
    least, most = gentle.interval
    assert least < gentle.low
    assert most is None or most > gentle.low


def test_the_answer_is_one_sentence() -> None:
    said = searched(lambda users: 1.0 if users <= 42 else 0.3).sentence("b200")
    assert said.startswith("b200 serves 4")
    assert "95% of requests with TTFT ≤ 500 ms and TPOT ≤ 50 ms." in said
    assert "does not serve even 1 user for" in searched(lambda _: 0.1).sentence("slow")
    assert searched(lambda _: 1.0, most=64).sentence("fast").startswith("fast serves at least 64 users")
    assert searched(lambda _: 1.0, most=1).sentence("fast").startswith("fast serves at least 1 user for")


def test_a_generator_at_its_limit_ends_the_search_and_says_so() -> None:
    search = Search(LIMITS)
    search.tell(Step(8, 100, 100))
    for _ in range(3):
        assert search.following() == 16
        search.tell(Step(16, 50, 100, limited=True))
    assert search.following() is None
    assert "at least 8 users" in search.sentence("x")
    assert "generator is the limit" in search.sentence("x")
    alone = Search(LIMITS)
    alone.tell(Step(1, 0, 10, limited=True))
    assert "not measurable" in alone.sentence("x")


def test_a_generator_that_was_the_limit_once_is_not_why_no_more_were_tried() -> None:
    search = Search(LIMITS, most=2)
    search.tell(Step(1, 50, 100, limited=True))
    for users in (1, 2):
        assert search.following() == users
        search.tell(Step(users, 100, 100))
    assert search.following() is None
    assert search.sentence("x").endswith("; no more were tried.")


def test_a_load_at_which_too_few_requests_began_answers_nothing() -> None:
    search = Search(LIMITS)
    search.tell(Step(8, 100, 100))
    search.tell(Step(16, 1, 1, thin=True))
    assert search.following() is None
    assert search.sentence("x").endswith("beyond, too few requests were answered in time to tell.")
    alone = Search(LIMITS)
    alone.tell(Step(4, 4, 4, thin=True))
    assert not alone.measurable
    assert alone.sentence("x") == "x: not measurable, too few requests were answered in time."
