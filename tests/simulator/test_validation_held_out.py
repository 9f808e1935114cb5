"""Rows held out: what is said of them comes from the others, as if those alone had been fitted."""

import pytest

from tests.simulator.measured import CATALOGUE, line, rows_of
from tests.simulator.test_validation_fits import made_up
from webapp.simulator.validation.errors import Compared, compare, summary
from webapp.simulator.validation.fit import fit
from webapp.simulator.validation.held_out import held_out
from webapp.simulator.validation.rows import Row


def compared(rows: list[Row]) -> tuple[list[Compared], dict[str, float | int | None]]:
    """Compare rows with their own fits, and hold them out."""
    fits = fit(rows, CATALOGUE)
    made = compare(rows, fits, CATALOGUE)
    return made, {name: figures["tpot_mape"] for name, figures in held_out(made, fits, CATALOGUE).items()}


def test_a_machine_held_out_is_predicted_as_if_its_rows_were_not_there() -> None:
    one, other = made_up(20.0, 30.0), made_up(150.0, 30.0, system="h200_sxm")
    made, held = compared([*one, *other])
    assert (summary(made)["tpot_mape"] or 0.0) < 0.01
    missed = [
        error
        for kept, left_out in ((one, other), (other, one))
        for each in compare(left_out, fit(kept, CATALOGUE), CATALOGUE)
        if (error := each.tpot_error) is not None
    ]
    assert held["machines"] == pytest.approx(sum(map(abs, missed)) / len(missed), rel=0.03)


def test_a_version_held_out_is_predicted_from_the_others() -> None:
    rows = [*made_up(40.0, 30.0), *made_up(80.0, 30.0, version="0.19.0")]
    _, held = compared(rows)
    layers = CATALOGUE.models["llama-70b"].layers
    expected = [(80.0 - 40.0) * layers / 1e3 / row.tpot_ms for row in rows]
    assert held["versions"] == pytest.approx(sum(expected) / len(expected), rel=0.05)
    assert held["versions"] == held["configurations"]


def test_rows_of_a_known_configuration_are_met_without_themselves() -> None:
    _, held = compared(made_up(61.0, 33.0, users=(1, 4, 8, 16), prompts=(256, 512, 2048)))
    assert (held["rows"] or 0.0) < 0.02
    assert (held["machines"] or 0.0) > 0.02


def test_a_lone_row_is_held_out_to_the_defaults() -> None:
    (row,) = rows_of([line()])
    made, held = compared([row])
    assert held["rows"] == held["machines"]
    assert (held["rows"] or 0.0) > (summary(made)["tpot_mape"] or 0.0)
