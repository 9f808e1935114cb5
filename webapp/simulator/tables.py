"""Turn a decoded TOML table into a dataclass, or say which entry is wrong and what it should be. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar

Made = TypeVar("Made")

RANGES: Mapping[str, tuple[float, float]] = {
    # field: lowest, highest. The bounds catch a wrong unit, not a surprising machine.
    "memory_gb": (0.01, 10_000),
    "bandwidth_tb_s": (0, 100_000),
    "bf16_tflops": (0, 1e6),
    "fp8_tflops": (0, 1e6),
    "fp4_tflops": (0, 1e6),
    "link_gb_s": (0, 1e6),
    "bandwidth_share": (0.01, 1),
    "bf16_share": (0.01, 1),
    "fp8_share": (0.01, 1),
    "fp4_share": (0.01, 1),
    "attention_share": (0.01, 1),
    "link_share": (0.01, 1),
    "memory_share": (0.01, 1),
    "sequence_us": (0, 100_000),
    "reserve_gb": (0, 1000),
    "kw_all_in": (0.001, 1e6),
    "usd_per_h": (0, 1e6),
    "parameters_b": (0.001, 100_000),
    "active_b": (0, 100_000),
    "expert_b": (0, 100_000),
    "layers": (1, 10_000),
    "hidden": (1, 1e6),
    "attention_width": (1, 1e6),
    "kv_elements": (1, 1e8),
    "context_tokens": (256, 10_000_000),
    "experts": (0, 100_000),
    "experts_per_token": (0, 100_000),
    "window_share": (0, 1),
    "window_tokens": (0, 10_000_000),
    "prefill_share": (0.01, 1),
    "draft_tokens": (1, 64),
    "accept": (0, 1),
    "decay": (0, 1),
    "draft_us": (0, 1e6),
    "devices": (1, 100_000),
    "layer_us": (0, 1e6),
    "kv_bytes": (0.1, 8),
    "data_parallel": (1, 100_000),
    "batch_tokens": (16, 1_000_000),
    "max_sequences": (1, 100_000),
    "slots": (0, 100_000),
    "prefill_tok_s": (0, 1e8),
    "jitter_sigma": (0, 1),
    "api_ms": (0, 60_000),
    "api_sigma": (0, 1),
    "token_us": (0, 100_000),
    "tok_s": (0.1, 20_000),
    "users": (1, 1_000_000),
    "chunk_tokens": (1, 256),
    "reasoning_tokens": (0, 10_000),
    "price_in_usd": (0, 10_000),
    "price_out_usd": (0, 10_000),
}


# Where 0 stands for "none": the least of the other values. A smaller one would make a step infinitely long or short.
LEAST: Mapping[str, float] = {
    "bandwidth_tb_s": 0.001,
    "bf16_tflops": 0.001,
    "fp8_tflops": 0.001,
    "fp4_tflops": 0.001,
    "link_gb_s": 0.001,
    "layer_us": 0.001,
    "prefill_tok_s": 1.0,
}

MOST_WRITTEN = 10**24  # a longer number is not repeated in an error


class ProfileError(ValueError):
    """A file that cannot be used; `field` is the name of the entry at fault."""

    def __init__(self, where: str, field: str, problem: str) -> None:
        super().__init__(f"{where}: {field} {problem}")
        self.field = field


def read(made: type[Made], table: Mapping[str, Any], where: str, choices: Mapping[str, tuple[str, ...]]) -> Made:
    """Check a table and make it a `made`, whose fields are texts, numbers and tuples of texts.

    Values that are already objects (of a dataclass, or tuples of such) are taken as they are. A text must not be empty
    unless its default is. Raises ProfileError.
    """
    known = {field.name: field for field in fields(made)}  # type: ignore[arg-type]
    refuse_unknown(table, known, where, made.__name__.lower())
    values = {}
    for name, field in known.items():
        if name in table:
            values[name] = _checked(where, name, str(field.type), field.default, table[name])
            if name in choices and values[name] not in choices[name]:
                raise ProfileError(where, name, f"must be one of {', '.join(map(repr, choices[name]))}")
        elif field.default is MISSING:
            raise ProfileError(where, name, "is missing")
    return made(**values)


def refuse_unknown(table: Mapping[str, Any], known: Collection[str], where: str, what: str) -> None:
    """Raise ProfileError for the first entry of `table` that is not among the `known` fields of a `what`."""
    for name in table:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ProfileError(where, name, f"is not a field of a {what}{hint}")


def _checked(where: str, name: str, kind: str, default: object, value: Any) -> Any:
    if "tuple[str" in kind:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise ProfileError(where, name, "must be a list of texts")
        return tuple(value)
    if "str" in kind or "Literal" in kind:
        return _text(where, name, default, value)
    if "bool" in kind:
        if not isinstance(value, bool):
            raise ProfileError(where, name, "must be true or false")
        return value
    if "int" in kind or "float" in kind:
        return _number(where, name, "float" not in kind, value)
    return value


def _text(where: str, name: str, default: object, value: Any) -> str:
    if not isinstance(value, str):
        raise ProfileError(where, name, "must be a text")
    if not value.strip() and default != "":
        raise ProfileError(where, name, "must not be empty")
    return value


def _number(where: str, name: str, whole: bool, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ProfileError(where, name, f"must be {'a whole number' if whole else 'a number'}")
    low, high = RANGES[name]
    if not low <= value <= high:  # nor is NaN
        raise ProfileError(where, name, f"must lie between {low:,.10g} and {high:,.10g}, not {_written(value)}")
    if value and value < LEAST.get(name, low):
        raise ProfileError(where, name, f"must be 0 or at least {LEAST[name]:g}, not {value}")
    return value


def _written(value: float) -> str:
    """Return a number as it can stand in a sentence: a whole one may have any number of digits."""
    return str(value) if isinstance(value, float) or abs(value) < MOST_WRITTEN else "a number of so many digits"
