"""SLOs: spelling, presets, what meets them, and the interval of a share."""

from __future__ import annotations

import pytest

from webapp.core import slo


def test_free_limits_are_read_in_milliseconds() -> None:
    found = slo.parse("ttft:500 tpot:50 e2e:10000")
    assert found.limits_ms == (("ttft", 500.0), ("tpot", 50.0), ("e2e", 10000.0))
    assert found.target == 0.95
    assert slo.parse(found.text) == found


def test_presets_are_known_by_name_and_may_change_their_share() -> None:
    assert slo.parse("mlperf:llama2-70b-interactive").limits_ms == (("ttft", 450), ("tpot", 40))
    assert slo.parse("mlperf:llama2-70b").target == 0.99
    assert slo.parse("voice at:0.9").target == 0.9
    assert not slo.parse("")


@pytest.mark.parametrize(
    "text",
    [
        "ttft",
        "at:0.9",
        "ttft:soon",
        "speed:5",
        "at:2",
        "voice ttft:5",
        "tpot:-1",
        "ttft:100 ttft:200",
        "e2e:9 e2el:8",
        "voice at:0.9 at:0.8",
    ],
)
def test_a_wrong_slo_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        slo.parse(text)


def test_a_request_is_good_only_if_every_limit_is_met() -> None:
    limits = slo.parse("ttft:500 tpot:50")
    assert limits.met({"ttft": 500.0, "tpot": 50.0})
    assert not limits.met({"ttft": 501.0, "tpot": 10.0})
    assert not limits.met({"ttft": None, "tpot": 10.0})
    assert limits.met({"ttft": 100.0, "tpot": None})  # one token only


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = slo.wilson(95, 100)
    assert (low, high) == pytest.approx((0.8882, 0.9785), abs=1e-3)
    assert slo.wilson(0, 0) == (0.0, 1.0)


def test_limits_are_said_in_words() -> None:
    assert slo.parse("voice").sentence == "TTFO ≤ 400 ms and TPOT ≤ 100 ms"
