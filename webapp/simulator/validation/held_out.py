"""What to expect of rows that nobody fitted: rows predicted from others of them, each part from the rest. Pure.

Nothing is simulated again. A step's time is linear in the time per layer, so that a prediction is moved to other
numbers by their difference; what more of a prompt a longer step carries is left out, as it is in a fit's last round.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from random import Random

from webapp.simulator.profile import Catalogue
from webapp.simulator.validation.bench import Expected
from webapp.simulator.validation.errors import Compared, summary
from webapp.simulator.validation.fit import fit_to
from webapp.simulator.validation.fits import Fit, Fits, keys_of
from webapp.simulator.validation.rows import Row

FOLDS = 10
FIGURES = ("n", "n_unsaturated", "tpot_mape", "tpot_median_ape")


def held_out(
    compared: Sequence[Compared], fits: Fits, catalogue: Catalogue
) -> Mapping[str, Mapping[str, float | int | None]]:
    """Return TPOT errors, fractions, of rows that were `compared` with `fits`, each predicted without a part of them.

    `rows`: without a random tenth. `configurations`: without every row of its configuration in its engine's version.
    `versions`: without every row of its model and machine in its engine's version. `machines`: without its machine's.
    """
    order = list(range(len(compared)))
    Random(1).shuffle(order)
    parts: Mapping[str, Sequence[Hashable]] = {
        "rows": [place % FOLDS for place in order],
        "configurations": [keys_of(each.row)[0] for each in compared],
        "versions": [(each.row.backend, each.row.version, each.row.model, each.row.system) for each in compared],
        "machines": [each.row.system for each in compared],
    }
    found = {name: summary(_without(part, compared, fits, catalogue)) for name, part in parts.items()}
    return {name: {figure: figures[figure] for figure in FIGURES} for name, figures in found.items()}


def _without(
    part: Sequence[Hashable], compared: Sequence[Compared], fits: Fits, catalogue: Catalogue
) -> list[Compared]:
    """Predict each row from those of the other parts."""
    groups: dict[Hashable, list[Compared]] = defaultdict(list)
    for name, each in zip(part, compared, strict=True):
        groups[name].append(each)
    moved = []
    for name, group in groups.items():
        others = [each for other, rest in groups.items() if other != name for each in rest if not each.saturated]
        fresh = Fits(fit_to([_expected(each, fits, catalogue) for each in others], catalogue))
        moved += [_moved(each, fits, fresh, catalogue) for each in group]
    return moved


def _expected(each: Compared, fits: Fits, catalogue: Catalogue) -> tuple[Row, Fit, Expected]:
    fit = fits.of(each.row, catalogue.models[each.row.model])
    ttft_ms = None if each.ttft_ms is None else each.ttft_ms - fit.api_ms
    return each.row, fit, Expected(each.tpot_ms, ttft_ms, each.kv_share)


def _moved(each: Compared, fits: Fits, fresh: Fits, catalogue: Catalogue) -> Compared:
    if each.tpot_ms is None or each.ttft_ms is None:
        return each
    model = catalogue.models[each.row.model]
    before, after = fits.of(each.row, model), fresh.of(each.row, model)
    tpot_ms = each.tpot_ms + (after.layer_us - before.layer_us) * model.layers / 1e3
    return replace(each, tpot_ms=tpot_ms, ttft_ms=each.ttft_ms + after.api_ms - before.api_ms)
