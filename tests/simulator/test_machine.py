from itertools import islice, pairwise
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.examples import profile
from webapp.simulator.machine import plan


def test_the_first_token_takes_api_base_and_prefill_time() -> None:
    timetable = plan(profile(), prompt_tokens=1000, seed=1)  # 5 ms + 1 ms + 1000 / 10,000 s
    assert timetable.first_ns == 106_000_000
    assert timetable.queue_ns == 0


def test_without_jitter_the_steps_are_even() -> None:
    timetable = plan(profile(), prompt_tokens=10, seed=1)
    first = timetable.first_ns
    assert list(islice(timetable.steps(), 4)) == [first, first + 500_000, first + 1_000_000, first + 1_500_000]


def test_a_chunk_of_several_tokens_takes_as_long_as_its_tokens() -> None:
    times = list(islice(plan(profile(chunk_tokens=5), 10, 1).steps(), 2))
    assert times[1] - times[0] == 2_500_000


def test_the_same_seed_gives_the_same_times_and_another_seed_others() -> None:
    noisy = profile(jitter_sigma=0.05, api_sigma=0.3)

    def trace(seed: int) -> list[int]:
        return list(islice(plan(noisy, 100, seed).steps(), 200))

    assert trace(7) == trace(7)
    assert trace(7) != trace(8)
    assert trace(7)[0] != trace(8)[0]


def test_two_profiles_of_one_seed_do_not_share_their_noise() -> None:
    noisy = {slug: profile(slug=slug, jitter_sigma=0.05) for slug in ("one", "two")}
    traces = [list(islice(plan(noisy[slug], 100, 7).steps(), 50)) for slug in noisy]
    assert traces[0] != traces[1]


def test_noise_does_not_change_the_pace() -> None:
    times = list(islice(plan(profile(jitter_sigma=0.1), 10, 3).steps(), 20_001))
    assert (times[-1] - times[0]) / 20_000 == pytest.approx(500_000, rel=0.005)


def test_noise_of_the_front_end_keeps_its_mean() -> None:
    noisy = profile(api_sigma=0.3)
    assert fmean(plan(noisy, 10, seed).api_ns for seed in range(2000)) == pytest.approx(5.5e6, rel=0.03)


@given(st.integers(1, 200_000), st.integers(-(2**63), 2**63 - 1), st.floats(0, 0.3))
def test_due_times_never_go_back(prompt_tokens: int, seed: int, sigma: float) -> None:
    times = list(islice(plan(profile(jitter_sigma=sigma), prompt_tokens, seed).steps(), 50))
    assert all(later > earlier for earlier, later in pairwise(times))
    assert times[0] > 0
