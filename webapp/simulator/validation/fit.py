"""Fit time per layer and front-end time to measured rows, and nothing else.

    python -m webapp.simulator.validation.fit ROWS.csv              write fits.csv from all rows
    python -m webapp.simulator.validation.fit ROWS.csv --held-out 1 fit a random half, show errors on both halves

The step time is linear in the time per layer, so the fit is a weighted median: the value that makes the sum of
absolute relative errors least. It does not follow outliers.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from webapp.simulator.profile import PROFILE_DIR, Catalogue
from webapp.simulator.validation.bench import SATURATED_TTFT_MS, Expected, expect
from webapp.simulator.validation.errors import Compared, compare, summary
from webapp.simulator.validation.fits import (
    ANYWHERE,
    API_MS,
    NO_FITS,
    Fit,
    Fits,
    Key,
    engine_key,
    keys_of,
    save_fits,
    wider_keys_of,
)
from webapp.simulator.validation.rows import Row, read_rows, serving_of

ROUNDS = 2  # a longer step carries more prompt, which changes the rest a little
GROUP_ROWS = 1.0  # what the wider group counts for beside a configuration's own rows
LAYER_BOUNDS_US = (5.0, 1000.0)
API_BOUNDS_MS = (5.0, 150.0)


def fit(rows: Sequence[Row], catalogue: Catalogue) -> Fits:
    """Return the fits that suit unsaturated `rows` best. The saturated ones are marked as looked at."""
    chosen = frozenset(row.mark for row in rows if row.ttft_ms > SATURATED_TTFT_MS)
    rows = [row for row in rows if row.mark not in chosen]
    marks = frozenset(row.mark for row in rows)
    fits = NO_FITS
    for _ in range(ROUNDS):
        expected = [(row, fits.of(row, catalogue.models[row.model]), _expected(row, fits, catalogue)) for row in rows]
        fits = Fits(fit_to(expected, catalogue), marks, chosen)
    return fits


def _expected(row: Row, fits: Fits, catalogue: Catalogue) -> Expected:
    machine, model = catalogue.machines[row.system], catalogue.models[row.model]
    return expect(row, serving_of(row, machine, model, fits.of(row, model).layer_us))


def fit_to(expected: Iterable[tuple[Row, Fit, Expected]], catalogue: Catalogue) -> dict[Key, Fit]:
    """Return the numbers that suit unsaturated rows best, given what the engine makes of each with other numbers."""
    layers: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    fronts: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    wider: dict[Key, Key] = {}
    engines: dict[Key, Key] = {}
    for row, before, result in expected:
        if result.tpot_ms is None or result.ttft_ms is None or result.kv_share > 1:
            continue
        count = catalogue.models[row.model].layers
        missing_us = (row.tpot_ms - result.tpot_ms) * 1e3 / count
        wider |= wider_keys_of(row)
        fronts[engine_key(row)].append((row.ttft_ms - result.ttft_ms, 1 / row.ttft_ms))
        for key in keys_of(row):
            layers[key].append((before.layer_us + missing_us, count / row.tpot_ms))
            if ANYWHERE not in key:
                engines[key] = engine_key(row)
    fitted: dict[Key, Fit] = {}

    def settle(key: Key) -> Fit:
        if key not in fitted:
            own, rows = _clipped(layers[key], LAYER_BOUNDS_US), len(layers[key])
            if key in wider:
                own = (own * rows + settle(wider[key]).layer_us * GROUP_ROWS) / (rows + GROUP_ROWS)
            front_ms = _clipped(fronts[engines[key]], API_BOUNDS_MS) if key in engines else API_MS
            fitted[key] = Fit(own, front_ms, rows)
        return fitted[key]

    return {key: settle(key) for key in layers}


def _clipped(values: list[tuple[float, float]], bounds: tuple[float, float]) -> float:
    """Return the weighted median of (value, weight), within bounds."""
    half, passed = sum(weight for _, weight in values) / 2, 0.0
    for value, weight in sorted(values):
        passed += weight
        if passed >= half:
            return min(max(value, bounds[0]), bounds[1])
    return bounds[0]


def _show(title: str, compared: Sequence[Compared]) -> None:
    made = summary(compared)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in made.items() if isinstance(value, float))
    print(f"{title}: n {made['n']}, {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--held-out", type=int, metavar="SEED", help="fit one random half and show both")
    asked = parser.parse_args()
    catalogue = Catalogue.load(PROFILE_DIR)
    rows, _ = read_rows(asked.rows, catalogue)
    if asked.held_out is None:
        fits = fit(rows, catalogue)
        save_fits(fits)
        _show("in-sample", compare(rows, fits, catalogue))
        return
    Random(asked.held_out).shuffle(rows)
    half = len(rows) // 2
    fits = fit(rows[:half], catalogue)
    _show("fitted half", compare(rows[:half], fits, catalogue))
    _show("other half", compare(rows[half:], fits, catalogue))
    few, many = [row for row in rows if row.users <= 16], [row for row in rows if row.users > 16]
    _show("more than 16 users, fitted on fewer", compare(many, fit(few, catalogue), catalogue))


if __name__ == "__main__":
    main()
