"""Numbers as people read them: whatever a server sends, they keep to their column."""

from __future__ import annotations

import pytest

from webapp.views.words import count_text, time_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (0, "0"),
        (55.24, "55.2"),
        (2059, "2059"),
        (12_059, "12\u2009059"),
        (9_999_999, "9\u2009999\u2009999"),
        (10**7, "1.0e7"),
        (1_123 * 10**12, "1.1e15"),
        (2**64 - 1, "1.8e19"),
        (-1e300, "-1.0e300"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_count_that_nobody_means_is_written_as_a_power_of_ten(value: float | None, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(745.0, ("745", "ms")), (600_000.0, ("600.0", "s")), (1e18, ("1.0e15", "s")), (float("inf"), ("inf", "s"))],
)
def test_a_time_that_nobody_means_is_too(ms: float, text: tuple[str, str]) -> None:
    assert time_text(ms) == text
