"""Fits: they find the numbers that made the rows, and go to the configurations that they belong to."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulator.measured import CATALOGUE, line, rows_of
from webapp.simulator.validation.bench import expect
from webapp.simulator.validation.errors import compare, summary
from webapp.simulator.validation.fit import fit
from webapp.simulator.validation.fits import FITS, NO_FITS, Fit, Fits, load_fits, save_fits
from webapp.simulator.validation.rows import Row, serving_of


def made_up(
    layer_us: float,
    api_ms: float,
    users: tuple[int, ...] = (1, 4, 16),
    prompts: tuple[int, ...] = (256, 2048),
    **changes: object,
) -> list[Row]:
    """Rows measured on a machine that is the engine itself."""
    rows = []
    for number in users:
        for prompt in prompts:
            (row,) = rows_of([line(concurrency=number, isl=prompt, **changes)])
            serving = serving_of(row, CATALOGUE.machines[row.system], CATALOGUE.models[row.model], layer_us)
            result = expect(row, serving)
            assert result.tpot_ms is not None
            assert result.ttft_ms is not None
            rows.append(replace(row, tpot_ms=result.tpot_ms, ttft_ms=result.ttft_ms + api_ms))
    return rows


def fitted(rows: list[Row], row: Row) -> Fit:
    return fit(rows, CATALOGUE).of(row, CATALOGUE.models[row.model])


@pytest.mark.parametrize(("layer_us", "api_ms"), [(61.0, 33.0), (20.0, 6.0), (400.0, 140.0)])
def test_a_fit_finds_the_numbers_that_made_the_rows(layer_us: float, api_ms: float) -> None:
    rows = made_up(layer_us, api_ms)
    fits = fit(rows, CATALOGUE)
    found = fits.of(rows[0], CATALOGUE.models["llama-70b"])
    assert found.layer_us == pytest.approx(layer_us, rel=0.01)
    assert found.api_ms == pytest.approx(api_ms, rel=0.05)
    assert found.rows == len(rows)
    figures = summary(compare(rows, fits, CATALOGUE))
    assert figures["tpot_mape"] == pytest.approx(0, abs=0.01)
    assert figures["ttft_mape"] == pytest.approx(0, abs=0.03)


def test_a_fit_follows_the_rows_whose_relative_error_it_mends_most() -> None:
    """One microsecond a layer is a larger part of one fast row than of two slow ones."""
    fast, slow = (
        made_up(61.0, 33.0, users=(1,), prompts=(256,)),
        made_up(100.0, 90.0, users=(64,), prompts=(2048, 2049)),
    )
    assert slow[0].tpot_ms > 3 * fast[0].tpot_ms
    assert slow[0].ttft_ms > 3 * fast[0].ttft_ms
    found = fitted([*fast, *slow], fast[0])
    assert found.layer_us == pytest.approx(61.0, rel=0.02)
    assert found.api_ms == pytest.approx(33.0, rel=0.05)


def test_a_lone_row_leans_on_its_version_as_on_one_more_row() -> None:
    """60 over all of that version, 100 in the one row of another split: 80 for that, 87 where two rows say it."""
    many = made_up(60.0, 30.0)
    one = made_up(100.0, 30.0, users=(4,), prompts=(512,), tp=4)
    two = made_up(100.0, 30.0, users=(4,), prompts=(512, 1024), tp=4)
    assert fitted([*many, *one], one[0]).layer_us == pytest.approx((100 + 60) / 2, rel=0.01)
    assert fitted([*many, *two], two[0]).layer_us == pytest.approx((2 * 100 + 60) / 3, rel=0.01)


def test_a_front_end_is_one_however_the_model_is_split() -> None:
    many, one = made_up(60.0, 20.0), made_up(60.0, 100.0, users=(4,), prompts=(512,), tp=4)
    assert fitted([*many, *one], one[0]).api_ms == pytest.approx(20.0, rel=0.05)


@pytest.mark.parametrize(("times", "bounds"), [(0.01, (5.0, 5.0)), (40.0, (1000.0, 150.0))])
def test_a_fit_stays_within_what_a_machine_can_be(times: float, bounds: tuple[float, float]) -> None:
    rows = [replace(row, tpot_ms=row.tpot_ms * times, ttft_ms=row.ttft_ms * times) for row in made_up(61.0, 33.0)]
    rows = [replace(row, ttft_ms=min(row.ttft_ms, 4999.0)) for row in rows]
    found = fitted(rows, rows[0])
    assert (found.layer_us, found.api_ms) == pytest.approx(bounds)


def test_nothing_is_fitted_on_saturated_rows_nor_on_what_overfills_the_kv_cache() -> None:
    (row,) = made_up(61.0, 33.0, users=(4,), prompts=(512,))
    (full,) = rows_of([line(concurrency=512, isl=8192, osl=1024)])
    assert fit([replace(row, ttft_ms=5001.0), full], CATALOGUE).by_key == {}
    assert fit([row], CATALOGUE).marks == {row.mark}
    looked_at = fit([replace(row, ttft_ms=5001.0)], CATALOGUE)
    assert looked_at.marks == frozenset()
    assert (looked_at.use_of(row), NO_FITS.use_of(row)) == ("chosen", "not_fitted")


@pytest.mark.parametrize("times", [5.0, 0.6])
def test_a_fit_does_not_follow_an_outlier(times: float) -> None:
    rows = made_up(61.0, 33.0)
    rows[0] = replace(rows[0], tpot_ms=rows[0].tpot_ms * times)
    assert fitted(rows, rows[0]).layer_us == pytest.approx(61.0, rel=0.03)


def test_a_configuration_without_a_fit_takes_the_nearest_one() -> None:
    known, model = Fit(50.0, 20.0, 9), CATALOGUE.models["llama-70b"]
    fits = Fits({("llama-70b", "h100", "vllm", "1"): known})
    two, engine = rows_of([line(), line(backend="mine")])
    assert fits.of(two, model) == known
    assert fits.of(engine, model) == Fit(70.0, 40.0, 0)
    assert NO_FITS.of(two, CATALOGUE.models["gpt-oss-120b"]).layer_us == 90


def test_what_is_not_fitted_takes_its_version_before_its_split_and_the_machine_before_any() -> None:
    (asked,) = rows_of([line(tp=4)])
    version, elsewhere = made_up(40.0, 30.0), made_up(50.0, 30.0, system="h200_sxm")
    split, engine = made_up(60.0, 30.0, tp=4, version="0"), made_up(70.0, 30.0, version="0")
    for known, layer_us in (
        ([*version, *elsewhere, *split, *engine], 40.0),
        ([*elsewhere, *split, *engine], 50.0),
        ([*split, *engine], 60.0),
        (engine, 70.0),
    ):
        assert fitted(known, asked).layer_us == pytest.approx(layer_us, rel=0.06)  # leaning on the wider one


def test_a_machine_that_nobody_measured_takes_the_versions_pace_elsewhere_and_no_front_end() -> None:
    (other,) = rows_of([line(system="h200_sxm")])
    rows = made_up(40.0, 100.0)
    assert fitted(rows, other).layer_us == pytest.approx(40.0, rel=0.01)
    assert fitted(rows, other).api_ms == 40.0
    (newer,) = rows_of([line(system="h200_sxm", version="1.0")])
    assert fitted(rows, newer) == Fit(70.0, 40.0, 0)


def test_the_shipped_fits_belong_to_shipped_models_and_survive_saving(tmp_path: Path) -> None:
    fits = load_fits()
    assert {key[0] for key in fits.by_key} <= set(CATALOGUE.models)
    assert len(fits.marks) > 500
    files = (tmp_path / "fits.csv", tmp_path / "marks.txt", tmp_path / "chosen.txt")
    save_fits(fits, *files)
    assert (tmp_path / "fits.csv").read_text(encoding="utf-8") == FITS.read_text(encoding="utf-8")
    assert load_fits(*files) == fits
