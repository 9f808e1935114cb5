"""The verdict: its sentence, its ties, and each reason why a comparison was not fair."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.core.errors import Outcome
from webapp.core.verdict import TIE_RATIO, LaneResult, Verdict, duration, durations, judge, times_sooner

FAIR: dict[str, Any] = {
    "label": "",
    "model_family": "llama-70b",
    "badge": "LIVE",
    "outcome": Outcome.DONE,
    "output_tokens": 400,
    "cached_tokens": 0,
    "reused": True,
    "sent_ms": 1.0,
}


def lane(letter: str, total_ms: float | None = 1000.0, ttft_ms: float | None = 100.0, **rest: Any) -> LaneResult:
    return LaneResult(letter=letter, total_ms=total_ms, ttft_ms=ttft_ms, **{**FAIR, **rest})


def shorts(verdict: Verdict) -> list[str]:
    return [warning.short for warning in verdict.warnings]


# The sentence


def test_two_lanes_get_one_sentence_with_the_ratio_and_both_times():
    found = judge([lane("A", 7500, 400), lane("B", 410, 50)])
    assert found.sentence == "B finished 18× sooner: 0.41 s against 7.5 s."
    assert found.details == "First token 8.0× sooner on B: 50 ms against 400 ms."
    assert found.winner == "B"
    assert found.warnings == ()


def test_the_first_token_may_be_another_lanes():
    found = judge([lane("A", 500, 300), lane("B", 1000, 100)])
    assert found.winner == "A"
    assert "First token 3.0× sooner on B" in found.details


def test_the_first_token_is_left_out_where_the_sentence_is_about_first_words():
    assert judge([lane("A", 500, 300), lane("B", 1000, 100)], first_token=False).details == ""


def test_with_three_lanes_the_sentence_says_than_whom_and_the_details_who_was_next():
    found = judge([lane("A", 3000, 200), lane("B", 1000, 200), lane("C", 2000, 200)])
    assert found.sentence == "B finished 3.0× sooner than A: 1.0 s against 3.0 s."
    assert found.details.startswith("Next was C, 2.0× later: 2.0 s. First tokens came together: 200 ms against 200 ms.")


def test_a_difference_within_the_error_of_one_run_is_a_tie():
    found = judge([lane("A", 1015), lane("B", 1000)])
    assert found.sentence == "B and A finished together: 1.00 s against 1.01 s."
    assert found.winner == ""
    assert judge([lane("A", 1020), lane("B", 1000)]).winner == "B"


def test_a_tie_at_the_top_has_no_winner_even_if_others_came_later():
    found = judge([lane("A", 1000), lane("B", 1010), lane("C", 5000)])
    assert found.winner == ""
    assert "Next was" not in found.details


def test_the_scenario_chooses_the_verb():
    assert judge([lane("A", 1000), lane("B", 2000)], what="kept up").sentence.startswith("A kept up 2.0× sooner")


def test_a_lane_that_failed_is_left_out_of_the_sentence_and_named():
    found = judge([lane("A", None, outcome=Outcome.TIMEOUT), lane("B", 1000), lane("C", 2000)])
    assert found.sentence == "B finished 2.0× sooner: 1.0 s against 2.0 s."
    assert found.warnings[0].detail == "A failed and is left out of the comparison."


def test_partial_times_of_a_failed_lane_never_win():
    found = judge([lane("A", 5, 5, outcome=Outcome.TRUNCATED), lane("B", 1000)])
    assert found.winner == "B"
    assert found.sentence == "B finished in 1.00 s; no other lane finished."


def test_one_lane_alone_wins_nothing():
    found = judge([lane("A", 1000)])
    assert found == Verdict("A finished in 1.00 s.")


def test_no_lane_finished():
    failed, stopped = lane("A", outcome=Outcome.ERROR), lane("B", outcome=Outcome.STOPPED)
    assert judge([failed, stopped]).sentence == "No lane finished, so there is nothing to compare."
    assert judge([stopped, stopped]).sentence == "Stopped before anyone finished."
    assert judge([]).sentence == "No lane finished, so there is nothing to compare."
    assert judge([failed]).winner == ""


def test_a_finished_lane_without_text_has_no_time_to_compare():
    found = judge([lane("A", None, None), lane("B", 1000)])
    assert found.sentence == "B finished in 1.00 s; no other lane finished."
    assert found.warnings[0].detail == "A ended without any text and is left out."
    assert judge([lane("A", None, None)]).sentence == "No lane sent any text, so there is nothing to compare."


def test_a_lane_that_only_thought_is_left_out_and_said_to_have_done_so():
    found = judge([lane("A", None, 5, only_thought=True), lane("B", 1000, 100), lane("C", 2000, 100)])
    assert found.sentence == "B finished 2.0× sooner: 1.0 s against 2.0 s."
    assert found.details == "First tokens came together: 100 ms against 100 ms."
    assert found.warnings[0].detail == "A only thought and gave no answer, and is left out."
    alone = judge([lane("A", None, 5, only_thought=True)])
    assert alone.sentence == "No lane gave an answer, so there is nothing to compare."


# Skew


def test_the_skew_is_between_the_first_and_the_last_request_sent():
    lanes = [lane("A", sent_ms=1.0), lane("B", sent_ms=1.75), lane("C", sent_ms=None, outcome=Outcome.ERROR)]
    assert judge(lanes).skew_ms == 0.75
    assert judge(lanes[:1]).skew_ms is None
    assert judge(lanes, order="sequential").skew_ms is None


# Warnings, one by one

UNFAIR = {
    "not all finished": [{}, {"outcome": Outcome.ERROR}],
    "stopped early": [{}, {"outcome": Outcome.STOPPED}],
    "empty answer": [{}, {"total_ms": None, "ttft_ms": None, "output_tokens": None}],
    "no answer": [{}, {"total_ms": None, "only_thought": True}],
    "different models": [{}, {"model_family": "gpt-oss-120b"}],
    "live and simulated mixed": [{}, {"badge": "SIMULATED"}],
    "different histories": [{}, {"earlier": ("What is light?",)}],
    "different lengths": [{"output_tokens": 100}, {"output_tokens": 111}],
    "cached prompt": [{"cached_tokens": 10}, {"cached_tokens": None}],
    "cold connection": [{"reused": False}, {"reused": True}],
    "host too busy": [{"host_lag_ms": 0.1}, {"host_lag_ms": 5.1}],
    "simulator late": [{"server_late_ms": 0.1}, {"server_late_ms": 5.1}],
}


@pytest.mark.parametrize(("short", "lanes"), UNFAIR.items(), ids=UNFAIR.keys())
def test_each_unfairness_is_warned_of_and_nothing_else(short: str, lanes: list[dict[str, Any]]):
    verdict = judge([lane("AB"[place], **rest) for place, rest in enumerate(lanes)])
    assert shorts(verdict) == [short]
    assert verdict.warnings[0].detail.endswith(".")


EVEN = {
    "both cached": [{"cached_tokens": 5}, {"cached_tokens": 7}],
    "both cold": [{"reused": False}, {"reused": False}],
    "both simulated": [{"badge": "SIMULATED"}, {"badge": "SIMULATED"}],
    "both after the same prompts": [{"earlier": ("What is light?",)}, {"earlier": ("What is light?",)}],
    "lengths within a tenth": [{"output_tokens": 100}, {"output_tokens": 110}],
    "a length that is not known": [{"output_tokens": None}, {"output_tokens": 500}],
    "a connection that is not known": [{"reused": None}, {"reused": True}],
    "a host that is quick enough": [{"host_lag_ms": 5.0}, {"host_lag_ms": None}],
    "a simulator that is quick enough": [{"server_late_ms": 5.0}, {"server_late_ms": None}],
}


@pytest.mark.parametrize("lanes", EVEN.values(), ids=EVEN.keys())
def test_what_is_the_same_on_both_sides_or_unknown_is_no_unfairness(lanes: list[dict[str, Any]]):
    assert shorts(judge([lane("AB"[place], **rest) for place, rest in enumerate(lanes)])) == []


def test_lanes_in_different_conversations_are_named_with_what_went_before():
    one, two = ("What is light?",), ("What is light?", "And sound?")
    found = judge([lane("A"), lane("B", earlier=one), lane("C", 500), lane("D", earlier=two)])
    assert found.warnings[0].detail == (
        "The lanes answered in different conversations: A and C after no earlier prompts, "
        "B after 1 earlier prompt, D after 2 earlier prompts."
    )
    assert shorts(judge([lane("A", earlier=one), lane("B", earlier=("What is sound?",))])) == ["different histories"]


def test_a_lane_that_is_left_out_may_have_any_history():
    found = judge([lane("A"), lane("B"), lane("C", earlier=("Hi",), outcome=Outcome.ERROR)])
    assert shorts(found) == ["not all finished"]


def test_a_late_simulator_is_said_to_be_late_by_the_most_and_in_which_lanes():
    found = judge([lane("A", server_late_ms=12.0), lane("B", server_late_ms=203.4), lane("C", server_late_ms=0.1)])
    assert found.warnings[0].detail.startswith("The simulator of A and B ran up to 203 ms behind its schedule:")


def test_lanes_one_after_the_other_are_warned_of_when_there_is_more_than_one():
    assert shorts(judge([lane("A"), lane("B")], order="sequential")) == ["one after the other"]
    assert shorts(judge([lane("A")], order="sequential")) == []


def test_a_single_lane_is_never_unfair_to_another():
    assert shorts(judge([lane("A", reused=False, cached_tokens=5)])) == []


def test_warnings_name_several_lanes_in_good_grammar():
    failed = [lane(letter, outcome=Outcome.ERROR) for letter in "ABC"]
    assert judge([*failed, lane("D")]).warnings[0].detail == "A, B and C failed and are left out of the comparison."
    stopped = [lane("A", outcome=Outcome.STOPPED), lane("B", outcome=Outcome.INTERRUPTED)]
    assert judge([*stopped, lane("D")]).warnings[0].detail == "A and B were stopped and are left out."


def test_a_verdict_can_be_written_as_json_values():
    verdict = judge([lane("A", reused=False), lane("B")])
    assert verdict.as_dict()["warnings"][0]["short"] == "cold connection"


# Numbers in words


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "n/a"),
        (0.0, "0.0 ms"),
        (1.25, "1.2 ms"),
        (9.94, "9.9 ms"),
        (9.97, "10 ms"),
        (94.4, "94 ms"),
        (99.9, "100 ms"),
        (99.96, "0.10 s"),
        (410, "0.41 s"),
        (7500, "7.50 s"),
        (9994, "9.99 s"),
        (9996, "10.0 s"),
        (99_940, "99.9 s"),
        (99_960, "1 min 40 s"),
        (119_600, "2 min 0 s"),
        (600_000, "10 min 0 s"),
    ],
)
def test_durations_are_read_as_people_say_them(ms: float | None, words: str):
    assert duration(ms) == words


@given(st.floats(0, 1e8))
def test_no_duration_has_sixty_seconds_or_a_thousand_milliseconds(ms: float):
    number, unit, *rest = duration(ms).split()
    assert unit in ("ms", "s", "min")
    assert float(number) <= {"ms": 100, "s": 99.9, "min": 1e9}[unit]
    assert not rest or float(rest[0]) < 60


@pytest.mark.parametrize(
    ("times_ms", "words"),
    [
        ((410, 7500), "0.41 s, 7.5 s"),
        ((28.1, 101), "28 ms, 101 ms"),  # was 28 ms against 0.10 s, of which nobody makes 3.6
        ((10.63, 11.2), "10.6 ms, 11.2 ms"),
        ((29.4, 30.9, 520), "29.4 ms, 30.9 ms, 520 ms"),
        ((92.3, 2660), "92 ms, 2660 ms"),  # as the lanes read; 0.0923 s takes counting of zeros
        ((29, 12_000), "0.029 s, 12 s"),
        ((107, 688), "107 ms, 688 ms"),
        ((9.97, 99.7), "10 ms, 100 ms"),
        ((1000, 1015), "1.00 s, 1.01 s"),
        ((0.0, 50), "0.0 ms, 50 ms"),
        ((12_300, 340_000), "12 s, 340 s"),
        ((100_000, 130_000), "1 min 40 s, 2 min 10 s"),
    ],
)
def test_times_that_are_compared_have_one_unit_and_the_digits_that_tell_them_apart(
    times_ms: tuple[float, ...], words: str
):
    assert ", ".join(durations(times_ms)) == words


@given(st.floats(0.1, 1e5), st.floats(1, 1e3))
def test_no_two_times_contradict_the_ratio_that_is_said_of_them(first_ms: float, ratio: float):
    first, last = durations([first_ms, first_ms * ratio])
    if "min" not in first:
        assert first.split()[1] == last.split()[1]
        assert float(last.split()[0]) / float(first.split()[0]) == pytest.approx(ratio, rel=0.05)
        if ratio >= TIE_RATIO:
            assert first != last


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(1.02, "1.02×"), (1.094, "1.09×"), (1.1, "1.1×"), (3.14, "3.1×"), (9.94, "9.9×"), (9.96, "10×")],
)
def test_ratios_are_read_as_people_say_them(ratio: float, words: str):
    assert times_sooner(ratio) == words
