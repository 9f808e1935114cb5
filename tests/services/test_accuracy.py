"""The page about the simulator's error shows what the code of today would find."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.services.accuracy import kept
from webapp.simulator.validation.report import report


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    return {table["table"]: table for table in report()["tables"]}


def test_the_kept_report_is_what_the_simulator_predicts_today(found: dict[str, dict[str, Any]]) -> None:
    # After a change of the engine or a profile: make validate.
    assert [table["table"] for table in kept()["tables"]] == list(found)
    for table in kept()["tables"]:
        fresh = found[table["table"]]
        predicted = [point["predicted"] for point in fresh["points"]]
        assert [point["predicted"] for point in table["points"]] == pytest.approx(predicted, rel=1e-6)
        for name in ("n", "mape", "median_ape"):
            assert table[name] == pytest.approx(fresh[name], rel=1e-6)


def test_the_number_beside_a_mean_error_is_that_of_the_points_that_it_is_the_mean_of(
    found: dict[str, dict[str, Any]],
) -> None:
    for table in found.values():
        leading = [abs(point["error"]) for point in table["points"] if point["unit"] == table["points"][0]["unit"]]
        assert table["n"] == len(leading)
        assert table["mape"] == pytest.approx(sum(leading) / len(leading))
