"""The page about the simulator's error shows what the code of today would find."""

from __future__ import annotations

import pytest

from webapp.services.accuracy import kept
from webapp.simulator.validation.report import report


def test_the_kept_report_is_what_the_simulator_predicts_today() -> None:
    # After a change of the engine or a profile: make validate.
    found = {table["table"]: table for table in report(None)["tables"]}
    assert [table["table"] for table in kept()["tables"]] == list(found)
    for table in kept()["tables"]:
        predicted = [point["predicted"] for point in found[table["table"]]["points"]]
        assert [point["predicted"] for point in table["points"]] == pytest.approx(predicted, rel=1e-6)
