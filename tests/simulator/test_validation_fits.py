"""Fits: they find the numbers that made the rows, and go to the configurations that they belong to."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulator.measured import CATALOGUE, line, rows_of
from webapp.simulator.validation.bench import expect
from webapp.simulator.validation.errors import compare, summary
from webapp.simulator.validation.fit import fit
from webapp.simulator.validation.fits import API_MS, FITS, NO_FITS, Fit, Fits, load_fits, save_fits
from webapp.simulator.validation.rows import Row, serving_of


def made_up(layer_us: float, api_ms: float) -> list[Row]:
    """Rows measured on a machine that is the engine itself."""
    rows = []
    for users in (1, 4, 16):
        for prompt in (256, 2048):
            (row,) = rows_of([line(concurrency=users, isl=prompt)])
            serving = serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model], layer_us)
            result = expect(row, serving)
            assert result.tpot_ms is not None
            assert result.ttft_ms is not None
            rows.append(replace(row, tpot_ms=result.tpot_ms, ttft_ms=result.ttft_ms + api_ms))
    return rows


def test_a_fit_finds_the_numbers_that_made_the_rows() -> None:
    rows = made_up(61.0, 33.0)
    fits = fit(rows, CATALOGUE)
    found = fits.of(rows[0], CATALOGUE.models["llama-70b"])
    assert found.layer_us == pytest.approx(61.0, rel=0.01)
    assert found.api_ms == pytest.approx(33.0, rel=0.05)
    assert found.rows == len(rows)
    figures = summary(compare(rows, fits, CATALOGUE))
    assert figures["tpot_mape"] == pytest.approx(0, abs=0.01)
    assert figures["ttft_mape"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("times", [5.0, 0.6])
def test_a_fit_does_not_follow_an_outlier(times: float) -> None:
    rows = made_up(61.0, 33.0)
    rows[0] = replace(rows[0], tpot_ms=rows[0].tpot_ms * times)
    found = fit(rows, CATALOGUE).of(rows[0], CATALOGUE.models["llama-70b"])
    assert found.layer_us == pytest.approx(61.0, rel=0.03)


def test_a_configuration_without_a_fit_takes_the_nearest_one() -> None:
    known, model = Fit(50.0, 20.0, 9), CATALOGUE.models["llama-70b"]
    fits = Fits({("llama-70b", "h100", "vllm", "1"): known, ("llama-70b", "vllm", "1"): Fit(60.0, 25.0, 90)})
    two, other, engine = rows_of([line(), line(system="h200_sxm"), line(backend="mine")])
    assert fits.of(two, model) == known
    assert fits.of(other, model).layer_us == 60
    assert fits.of(engine, model) == Fit(70.0, API_MS, 0)
    assert NO_FITS.of(two, CATALOGUE.models["gpt-oss-120b"]).layer_us == 90


def test_the_shipped_fits_belong_to_shipped_models_and_survive_saving(tmp_path: Path) -> None:
    fits = load_fits()
    assert {key[0] for key in fits.by_key} <= set(CATALOGUE.models)
    assert len(fits.marks) > 500
    save_fits(fits, tmp_path / "fits.csv", tmp_path / "marks.txt")
    assert (tmp_path / "fits.csv").read_text(encoding="utf-8") == FITS.read_text(encoding="utf-8")
    assert load_fits(tmp_path / "fits.csv", tmp_path / "marks.txt") == fits
