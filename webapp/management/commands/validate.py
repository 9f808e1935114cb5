"""`manage.py validate`: hold the simulator against published measurements and print how far off it is."""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from webapp.services.accuracy import keep
from webapp.simulator.validation.report import report

COLUMNS = ("n", "tpot_mape", "tpot_median_ape", "ttft_mape", "saturated_recall", "false_alarm_rate")

USES = {
    "fitted": "fitted",
    "chosen": "chosen (seen for a setting)",
    "not_fitted": "not fitted",
}
HELD_OUT = {
    "rows": "held out: a tenth of the rows",
    "configurations": "held out: a configuration",
    "versions": "held out: an engine's version",
    "machines": "held out: a machine",
}


class Command(BaseCommand):
    help = "Compare the simulator's predictions with published measurements: TPOT, TTFT and saturation."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--rows", type=Path, metavar="FILE.csv", help="measured rows beside the shipped tables")
        parser.add_argument("--json", action="store_true", help="print JSON; errors and rates are fractions")
        parser.add_argument("--keep", action="store_true", help="write the tables where the app's help page reads them")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = report(options["rows"])
        except OSError as problem:
            raise CommandError(f"{problem.filename} cannot be read: {problem.strerror}.") from None
        except ValueError as problem:
            raise CommandError(str(problem)) from None
        if options["keep"]:
            keep(made, measured=options["rows"] is not None)
        if options["json"]:
            self.stdout.write(orjson.dumps(made, option=orjson.OPT_INDENT_2).decode())
            return
        for line in lines(made):
            self.stdout.write(line)


def lines(made: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report as text for people."""
    yield "Published tables"
    yield f"  {'table':<22}{'n':>4}{'mean':>8}{'median':>8}{'target':>8}  fitted on it"
    for table in made["tables"]:
        target = "–" if table["target"] is None else _percent(table["target"])
        mark = "" if table["met"] else "  MISSED"
        yield (
            f"  {table['table']:<22}{table['n']:>4}{_percent(table['mape']):>8}{_percent(table['median_ape']):>8}"
            f"{target:>8}  {table['fitted']}{mark}"
        )
        if table["missed"]:
            yield f"  {'':<22}missed: {table['missed']}"
    yield ""
    yield f"Rows of {made['rows']}: {made['n']} compared, {made['skipped']} skipped"
    for reason, count in made["skipped_reasons"].items():
        yield f"  skipped {count}: {reason}"
    yield f"  {'':<32}{'n':>6}{'TPOT':>8}{'median':>8}{'TTFT':>8}{'found':>8}{'false':>8}"
    yield _row("all", made)
    for name, label in USES.items():
        yield _row(label, made[name])
    for name, label in HELD_OUT.items():
        if made["held_out"]:
            yield _row(label, made["held_out"][name])
    for name, figures in made["per_model_and_system"].items():
        yield _row(name, figures)
    for key, verdict in made["targets"].items():
        bound = _percent(verdict.get("at_most", verdict.get("at_least")))
        if verdict["met"] is False:
            yield f"  MISSED {key}: {_percent(verdict['value'])}, wanted {bound}"
        elif verdict["met"] is None:
            yield f"  no verdict on {key}, wanted {bound}: there are no such rows"


def _row(name: str, figures: Mapping[str, Any]) -> str:
    rest = "".join(f"{_percent(figures.get(column)):>8}" for column in COLUMNS[1:])
    return f"  {name:<32}{figures['n']:>6}{rest}"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"
