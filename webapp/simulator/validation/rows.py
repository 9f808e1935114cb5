"""Measured rows: a CSV file of benchmark results, and the machine, model and load that each of them names."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from webapp.simulator.costs import kv_capacity
from webapp.simulator.hardware import PRECISIONS, Machine, Model, Serving
from webapp.simulator.profile import Catalogue
from webapp.simulator.validation.recipes import Recipe, recipe_of

COLUMNS = (
    "model",
    "system",
    "backend",
    "version",
    "precision",
    "tp",
    "moe_tp",
    "moe_ep",
    "attention_dp",
    "concurrency",
    "isl",
    "osl",
    "ttft_ms",
    "tpot_ms",
)
BATCH_TOKENS = 8192  # default of vLLM and TensorRT-LLM on machines of this class
# InferenceX (rows that name an attention_dp) draws lengths evenly from 0.8 to 1.0 of the nominal ones.
INFERENCEX_SPREAD = 0.8
AGAIN = "the same line again"


class BadRow(ValueError):
    """A row that cannot be compared, and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured configuration and its load. What it was served with is `serving_of` it, given a time per layer."""

    model: str  # names of ours
    system: str
    backend: str
    version: str
    precision: str
    devices: int
    data_parallel: int
    users: int
    prompt_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float
    spread: float  # shortest length over longest
    recipe: Recipe
    mark: str  # short hash of what the file says

    @property
    def mean_tokens(self) -> tuple[float, float]:
        """Mean prompt and output length."""
        mean = (1 + self.spread) / 2
        return self.prompt_tokens * mean, self.output_tokens * mean


def read_rows(path: Path, catalogue: Catalogue) -> tuple[list[Row], dict[str, int]]:
    """Return the rows that can be compared, and how many cannot, by reason.

    Raises ValueError, in one sentence, where the file is not such a table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin it with a mark
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise ValueError(f"{path.name} lacks the column {missing[0]!r}; it needs {', '.join(COLUMNS)}.")
            return sort_out(table, catalogue)
    except (UnicodeDecodeError, csv.Error) as problem:
        raise ValueError(f"{path.name} is not a CSV file: {problem}.") from None


def sort_out(table: Iterable[Mapping[str, str | None]], catalogue: Catalogue) -> tuple[list[Row], dict[str, int]]:
    """Turn decoded lines into rows; the others are counted by reason. A line that stands there twice counts once."""
    rows: dict[str, Row] = {}
    skipped: dict[str, int] = {}
    machines = {name: machine for machine in catalogue.machines.values() for name in (machine.slug, *machine.names)}
    models = {name: model for model in catalogue.models.values() for name in (model.slug, *model.names)}
    for line in table:
        try:
            row = _row({name: (line.get(name) or "").strip() for name in COLUMNS}, machines, models)
            if row.mark in rows:
                raise BadRow(AGAIN)
            rows[row.mark] = row
        except BadRow as problem:
            skipped[str(problem)] = skipped.get(str(problem), 0) + 1
    return list(rows.values()), skipped


def _row(line: Mapping[str, str], machines: Mapping[str, Machine], models: Mapping[str, Model]) -> Row:
    if line["model"] not in models:
        raise BadRow(f"unknown model {line['model'][:80]!r}")
    if line["system"] not in machines:
        raise BadRow(f"unknown system {line['system'][:80]!r}")
    model, machine = models[line["model"]], machines[line["system"]]
    if machine.kind != "bandwidth":
        raise BadRow(f"system {machine.slug!r} has no engine with a step per token")
    inferencex = line["attention_dp"] != ""
    parallel = max(1, _whole(line, "attention_dp")) if inferencex else 1
    recipe = recipe_of(line["backend"], model.slug, machine.slug, line["version"])
    row = Row(
        model=model.slug,
        system=machine.slug,
        backend=line["backend"],
        version=line["version"],
        precision=_precision(line, model, recipe),
        devices=_devices(line, parallel),
        data_parallel=parallel,
        users=_positive(line, "concurrency"),
        prompt_tokens=_positive(line, "isl"),
        output_tokens=_positive(line, "osl"),
        ttft_ms=_time(line, "ttft_ms"),
        tpot_ms=_time(line, "tpot_ms"),
        spread=INFERENCEX_SPREAD if inferencex else 1.0,
        recipe=recipe,
        mark=blake2b("\x1f".join(line.values()).encode(), digest_size=5).hexdigest(),
    )
    if row.output_tokens == 1:
        raise BadRow("an answer of one token has no time per token")
    if kv_capacity(serving_of(row, machine, model)) <= 0:
        raise BadRow(f"{model.slug} in {row.precision} does not fit {row.devices}×{machine.slug}")
    return row


def serving_of(row: Row, machine: Machine, model: Model, layer_us: float = 0.0) -> Serving:
    """Return what the row was measured on, as far as it is known.

    Weights in MXFP4 are multiplied in fp8 where the machine has fp4 units, in bf16 elsewhere.
    """
    recipe, mixed = row.recipe, model.dense_precision and row.precision == "fp4"
    prompts = recipe.prompts_a_step * row.prompt_tokens * row.data_parallel if recipe.prompts_a_step else BATCH_TOKENS
    return Serving(
        machine=machine,
        model=model,
        devices=row.devices,
        precision=row.precision,
        layer_us=layer_us,
        kv_bytes=recipe.kv_bytes or 2.0,
        arithmetic=("fp8" if machine.fp4_tflops else "bf16") if mixed else "",
        data_parallel=row.data_parallel,
        batch_tokens=max(prompts, 2 * row.users),
        max_sequences=min(row.users, recipe.most_at_once or row.users),
        reserves_answers=row.backend == "trtllm",
        jitter_sigma=0.0,
    )


def _devices(line: Mapping[str, str], parallel: int) -> int:
    """Return how many devices there were in all.

    InferenceX' vLLM recipes start `tp` data-parallel groups of one device each and report `tp` in both columns; where
    both forms were measured, the figures are those of the same number of devices. Elsewhere `tp` is a group's.
    """
    devices = _positive(line, "tp")
    return devices if line["backend"] == "vllm" and devices == parallel else devices * parallel


def _precision(line: Mapping[str, str], model: Model, recipe: Recipe) -> str:
    """Return the precision of the weights: as stated, else as the recipe has it, else bf16, that of the checkpoints.

    A model whose experts exist in one precision only is taken in that, whatever the line says.
    """
    stated = line["precision"].lower()
    if model.dense_precision:
        return "fp4"
    if not stated:
        return recipe.precision or "bf16"
    if stated not in PRECISIONS:
        raise BadRow(f"unknown precision {stated[:20]!r}")
    return stated


def _whole(line: Mapping[str, str], name: str) -> int:
    try:
        value = float(line[name])
    except ValueError:
        value = math.nan
    if not value.is_integer():  # as little as infinity is
        raise BadRow(f"{name} is not a whole number")
    if not 0 <= value <= 1_000_000:
        raise BadRow(f"{name} is out of range")
    return int(value)


def _positive(line: Mapping[str, str], name: str) -> int:
    value = _whole(line, name)
    if value < 1:
        raise BadRow(f"{name} is not above 0")
    return value


def _time(line: Mapping[str, str], name: str) -> float:
    try:
        value = float(line[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRow(f"{name} is not a number")
    if not 0 < value < 1e9:
        raise BadRow(f"{name} is out of range")
    return value
