"""Compare predictions with measurements and sum the errors up. Errors and rates are fractions: 0.08 is 8 %.

A row is *saturated* when its measured first token took more than 5 s. A row is *flagged* when the engine says so: its
users need more KV cache than there is, or its first token is predicted to take more than 5 s. Errors of TPOT and TTFT
are those of the rows that are neither; what is flagged without being saturated is counted as a false alarm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles

from webapp.simulator.profile import Catalogue
from webapp.simulator.validation.bench import SATURATED_TTFT_MS, expect
from webapp.simulator.validation.fits import Fits, Use
from webapp.simulator.validation.rows import Row, serving_of


@dataclass(frozen=True, slots=True)
class Compared:
    """One row and what the engine predicts for it."""

    row: Row
    tpot_ms: float | None
    ttft_ms: float | None
    kv_share: float
    use: Use

    @property
    def saturated(self) -> bool:
        return self.row.ttft_ms > SATURATED_TTFT_MS

    @property
    def flagged(self) -> bool:
        return self.kv_share > 1 or self.ttft_ms is None or self.ttft_ms > SATURATED_TTFT_MS

    @property
    def tpot_error(self) -> float | None:
        """Predicted over measured, less 1."""
        return None if self.tpot_ms is None else self.tpot_ms / self.row.tpot_ms - 1

    @property
    def ttft_error(self) -> float | None:
        """Predicted over measured, less 1."""
        return None if self.ttft_ms is None else self.ttft_ms / self.row.ttft_ms - 1


def compare(rows: Sequence[Row], fits: Fits, catalogue: Catalogue) -> list[Compared]:
    """Predict every row."""
    compared = []
    for row in rows:
        machine, model = catalogue.machines[row.system], catalogue.models[row.model]
        fit = fits.of(row, model)
        result = expect(row, serving_of(row, machine, model, fit.layer_us))
        ttft_ms = None if result.ttft_ms is None else result.ttft_ms + fit.api_ms
        compared.append(Compared(row, result.tpot_ms, ttft_ms, result.kv_share, fits.use_of(row)))
    return compared


def summary(compared: Sequence[Compared]) -> dict[str, float | int | None]:
    """Return the figures of the contract; None where there is nothing to sum up."""
    plain = [each for each in compared if not each.saturated and not each.flagged]
    tpot = [abs(error) for each in plain if (error := each.tpot_error) is not None]
    ttft = [abs(error) for each in plain if (error := each.ttft_error) is not None]
    hits = sum(each.saturated and each.flagged for each in compared)
    saturated = sum(each.saturated for each in compared)
    false_alarms = sum(each.flagged and not each.saturated for each in compared)
    calm = len(compared) - saturated
    everything = [abs(error) for each in compared if not each.saturated and (error := each.tpot_error) is not None]
    return {
        "n": len(compared),
        "n_unsaturated": len(plain),
        "tpot_mape": fmean(tpot) if tpot else None,
        "tpot_median_ape": median(tpot) if tpot else None,
        "tpot_p90_ape": _p90(tpot),
        "tpot_mape_with_false_alarms": fmean(everything) if everything else None,
        "ttft_mape": fmean(ttft) if ttft else None,
        "ttft_median_ape": median(ttft) if ttft else None,
        "saturated": saturated,
        "saturated_found": hits,
        "saturated_recall": hits / saturated if saturated else None,
        "false_alarms": false_alarms,
        "false_alarm_rate": false_alarms / calm if calm else None,
    }


def by(compared: Sequence[Compared], name: Callable[[Row], str]) -> Mapping[str, dict[str, float | int | None]]:
    """Return a summary for each value of `name`."""
    groups: dict[str, list[Compared]] = {}
    for each in compared:
        groups.setdefault(name(each.row), []).append(each)
    return {key: summary(groups[key]) for key in sorted(groups)}


def _p90(values: Sequence[float]) -> float | None:
    return quantiles(values, n=10, method="inclusive")[8] if len(values) > 1 else None
