"""The two numbers of a measured configuration that no data sheet gives: time per layer and front-end time.

`fits.csv` holds them, with the number of rows behind each. The time per layer is a matter of software, so an engine's
version and its precision count most. A configuration that is not in the file takes the numbers that the same version
took for the same model and precision, however split, on this machine, else on any; else its own in whatever version;
else those of the model, machine, engine and data parallelism; else the defaults. In this order rows that nobody fitted
are predicted best (README.md). Pure after loading.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from webapp.simulator.hardware import Model
from webapp.simulator.validation.recipes import ROWS
from webapp.simulator.validation.rows import Row

FITS = Path(__file__).with_name("fits.csv")
FITTED_ROWS = Path(__file__).with_name("fitted_rows.txt")
CHOSEN_ROWS = Path(__file__).with_name("chosen_rows.txt")
DENSE_LAYER_US = 70.0  # where nothing is known
EXPERTS_LAYER_US = 90.0
API_MS = 40.0

ANYWHERE = "*"  # in a key, for the machine

Key = tuple[str, ...]
# What a row was used for. fitted: a number was fitted on it. chosen: none was, but a setting was chosen after seeing
# it, or rows of its kind. Only the others say what to expect of a row that nobody has seen.
Use = Literal["fitted", "chosen", "not_fitted"]


@dataclass(frozen=True, slots=True)
class Fit:
    """Numbers of one configuration. `rows` is how many stand behind them."""

    layer_us: float
    api_ms: float
    rows: int


def keys_of(row: Row) -> tuple[Key, ...]:
    """Return what the row can be looked up by, the closest first."""
    split = (row.model, row.system, row.backend, row.precision, str(row.devices), str(row.data_parallel))
    software = (row.backend, row.precision, row.version)
    return (
        (*split, row.version),
        (row.model, row.system, *software),
        (row.model, ANYWHERE, *software),
        split,
        engine_key(row),
    )


def wider_keys_of(row: Row) -> Mapping[Key, Key]:
    """Return which of the row's keys are part of which."""
    split_and_version, version, version_anywhere, split, engine = keys_of(row)
    return {split_and_version: version, version: version_anywhere, split: engine}


def engine_key(row: Row) -> Key:
    """Return the key that the front-end time belongs to, whatever the version and however the model is split."""
    return row.model, row.system, row.backend, str(row.data_parallel)


@dataclass(frozen=True, slots=True)
class Fits:
    """All fits, by key, and the marks of the rows that they were made from, and of those that were looked at only."""

    by_key: Mapping[Key, Fit]
    marks: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()

    def use_of(self, row: Row) -> Use:
        """Return what the row was used for."""
        if row.mark in self.marks:
            return "fitted"
        return "chosen" if row.mark in self.chosen or row.recipe.source == ROWS else "not_fitted"

    def of(self, row: Row, model: Model) -> Fit:
        """Return the numbers for a row."""
        default = Fit(EXPERTS_LAYER_US if model.experts else DENSE_LAYER_US, API_MS, 0)
        nearest = next((self.by_key[key] for key in keys_of(row) if key in self.by_key), default)
        return replace(nearest, api_ms=self.by_key.get(engine_key(row), default).api_ms)


NO_FITS = Fits({})


def load_fits(path: Path = FITS, marks: Path = FITTED_ROWS, chosen: Path = CHOSEN_ROWS) -> Fits:
    """Read the shipped fits."""
    with path.open(encoding="utf-8", newline="") as file:
        by_key = {
            tuple(line["key"].split("|")): Fit(float(line["layer_us"]), float(line["api_ms"]), int(line["rows"]))
            for line in csv.DictReader(file)
        }
    return Fits(by_key, *(frozenset(each.read_text(encoding="ascii").split()) for each in (marks, chosen)))


def save_fits(fits: Fits, path: Path = FITS, marks: Path = FITTED_ROWS, chosen: Path = CHOSEN_ROWS) -> None:
    """Write fits, sorted, so that a change shows."""
    lines = ["key,layer_us,api_ms,rows"]
    lines += [
        f"{'|'.join(key)},{fit.layer_us:.1f},{fit.api_ms:.0f},{fit.rows}" for key, fit in sorted(fits.by_key.items())
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for file, names in ((marks, fits.marks), (chosen, fits.chosen)):
        file.write_text("\n".join(sorted(names)) + "\n", encoding="ascii")
