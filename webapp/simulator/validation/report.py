"""The whole proof as one report: the shipped tables, and a file of rows where there is one. Values only; fractions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from webapp.simulator.profile import PROFILE_DIR, Catalogue, load_all
from webapp.simulator.validation.errors import Compared, by, compare, summary
from webapp.simulator.validation.fits import Use, load_fits
from webapp.simulator.validation.held_out import held_out
from webapp.simulator.validation.published import Result, results
from webapp.simulator.validation.rows import read_rows

# figure: bound, and whether it is an upper one
TARGETS: Mapping[str, tuple[float, bool]] = MappingProxyType(
    {
        "tpot_mape": (0.08, True),
        "tpot_median_ape": (0.05, True),
        "ttft_mape": (0.25, True),
        "saturated_recall": (0.90, False),
        "false_alarm_rate": (0.02, True),
        "not_fitted_tpot_mape": (0.10, True),
    }
)


def report(rows: Path | None = None, tables: Sequence[Result] | None = None) -> dict[str, Any]:
    """Return the report, of the shipped tables unless their results are given. Its leading figures are those of `rows`,
    or of the tables' closed-loop rows.

    Raises OSError and ValueError for a file that cannot be read or is not such a table.
    """
    catalogue, fits = Catalogue.load(PROFILE_DIR), load_fits()
    read, skipped = ([], dict[str, int]()) if rows is None else read_rows(rows, catalogue)
    tables = results(load_all()) if tables is None else tables
    if rows is None:
        name, held = "shipped tables", None
        compared: Sequence[Compared] = [each for table in tables for each in table.compared]
    else:
        name, compared = rows.name, compare(read, fits, catalogue)
        held = held_out(compared, fits, catalogue)
    uses = {use: summary([each for each in compared if each.use == use]) for use in get_args(Use)}
    figures = {**summary(compared), "not_fitted_tpot_mape": uses["not_fitted"]["tpot_mape"]}
    return {
        "rows": name,
        "unit": "fraction",
        **figures,
        "skipped": sum(skipped.values()),
        "skipped_reasons": skipped,
        "targets": {key: _verdict(key, figures[key]) for key in TARGETS},
        **uses,
        "held_out": held,
        "per_model": by(compared, lambda row: row.model),
        "per_system": by(compared, lambda row: row.system),
        "per_model_and_system": by(compared, lambda row: f"{row.model} on {row.system}"),
        "tables": [_table(table) for table in tables],
    }


def _verdict(key: str, value: float | int | None) -> dict[str, Any]:
    bound, upper = TARGETS[key]
    met = None if value is None else (value <= bound if upper else value >= bound)
    return {"at_most" if upper else "at_least": bound, "value": value, "met": met}


def _table(table: Result) -> dict[str, Any]:
    return {
        "table": table.slug,
        "label": table.label,
        "source": table.source,
        "date": table.date,
        "profile": table.profile,
        "fitted": table.fitted,
        "n": len(table.errors),
        "mape": table.mape,
        "median_ape": table.median_ape,
        "target": table.target,
        "met": table.met,
        "missed": table.missed,
        "points": [
            {
                "what": point.what,
                "unit": point.unit,
                "published": point.published,
                "predicted": point.predicted,
                "error": point.error,
            }
            for point in table.points
        ],
    }
