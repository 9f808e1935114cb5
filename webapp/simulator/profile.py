"""What the simulator knows of a machine: one TOML file per profile, checked on loading.

Pure: reads files once at the start, then only values.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

PROFILE_DIR = Path(__file__).with_name("profiles")

# C: fitted on rows of this very machine. F: fitted on the maker's table. D: defaults only, a true
# prediction. A: set to the published figure, or assumed.
STATUSES = "CFDA"
CONFIDENCES = "HML"
REASONING_FIELDS = ("", "reasoning", "reasoning_content")


class ProfileError(ValueError):
    """A profile that cannot be used; `field` is the name of the entry at fault."""

    def __init__(self, where: str, field: str, problem: str) -> None:
        super().__init__(f"{where}: {field} {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Profile:
    """The figures of one model on one machine, for one user at a time."""

    slug: str
    label: str
    hardware: str
    model: str
    family: str  # lanes of one family may be compared without a warning
    tok_s: float  # output tokens per second and user, 1 / TPOT
    api_ms: float  # HTTP, tokenising, scheduling; for a cloud service the network too
    ttft_base_ms: float  # launch overhead of the prefill step
    prefill_tok_s: float  # prompt tokens per second in an idle machine
    source: str
    date: str
    status: str
    error: str
    confidence: str
    devices: int
    chunk_tokens: int = 1  # tokens in one streamed chunk
    reasoning_field: str = ""  # name of the delta field; "" for a model that does not reason
    reasoning_tokens: int = 0  # about; thoughts end with a whole sentence
    jitter_sigma: float = 0.02  # of the log of a step's time
    api_sigma: float = 0.1  # of the log of api_ms
    context_tokens: int = 131_072
    price_in_usd: float | None = None  # per million prompt tokens
    price_out_usd: float | None = None  # per million output tokens
    price_source: str = ""
    kw_all_in: float | None = None  # the whole replica, host and cooling included
    kw_source: str = ""

    @property
    def reasons(self) -> bool:
        return bool(self.reasoning_field)


# field: (lowest, highest). The bounds catch a wrong unit, not a surprising machine.
_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "tok_s": (0.1, 20_000),
        "api_ms": (0, 60_000),
        "ttft_base_ms": (0, 60_000),
        "prefill_tok_s": (1, 1e8),
        "devices": (1, 100_000),
        "chunk_tokens": (1, 256),
        "reasoning_tokens": (0, 10_000),
        "jitter_sigma": (0, 1),
        "api_sigma": (0, 1),
        "context_tokens": (256, 10_000_000),
        "price_in_usd": (0, 10_000),
        "price_out_usd": (0, 10_000),
        "kw_all_in": (0.001, 1e6),
    }
)
_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "status": tuple(STATUSES),
        "confidence": tuple(CONFIDENCES),
        "reasoning_field": REASONING_FIELDS,
    }
)
_MAY_BE_EMPTY = frozenset({"reasoning_field", "price_source", "kw_source"})


def load(path: Path) -> Profile:
    """Read one profile. Its slug is the file's name.

    Raises ProfileError with the field at fault.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ProfileError(path.name, "file", f"is not TOML: {problem}") from None
    return from_table({"slug": path.stem, **table}, path.name)


def load_all(folder: Path = PROFILE_DIR) -> dict[str, Profile]:
    """Read every profile of a folder, keyed by slug, the fastest first."""
    found = sorted((load(path) for path in folder.glob("*.toml")), key=lambda profile: -profile.tok_s)
    return {profile.slug: profile for profile in found}


def from_table(table: Mapping[str, Any], where: str) -> Profile:
    """Check a decoded table and make it a Profile; `where` begins the error's message."""
    known = {field.name: field for field in fields(Profile)}
    for name in table:
        if name not in known:
            raise ProfileError(where, name, "is not a field of a profile")
    for name, field in known.items():
        if name in table:
            _check(where, name, str(field.type), table[name])
        elif field.default is MISSING:
            raise ProfileError(where, name, "is missing")
    _check_together(where, table)
    return Profile(**table)


def _check(where: str, name: str, kind: str, value: Any) -> None:
    if "str" in kind:
        _check_text(where, name, value)
    elif isinstance(value, bool) or not isinstance(value, int if "int" in kind else int | float):
        raise ProfileError(where, name, f"must be {'a whole number' if 'int' in kind else 'a number'}")
    else:
        low, high = _RANGES[name]
        if not (math.isfinite(value) and low <= value <= high):
            raise ProfileError(where, name, f"must lie between {low:g} and {high:g}, not {value}")


def _check_text(where: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ProfileError(where, name, "must be a text")
    choices = _CHOICES.get(name)
    if choices and value not in choices:
        raise ProfileError(where, name, f"must be one of {', '.join(map(repr, choices))}")
    if not value.strip() and name not in _MAY_BE_EMPTY:
        raise ProfileError(where, name, "must not be empty")


def _check_together(where: str, table: Mapping[str, Any]) -> None:
    if bool(table.get("reasoning_field")) != bool(table.get("reasoning_tokens")):
        raise ProfileError(where, "reasoning_tokens", "and reasoning_field must be given together")
    if (table.get("price_in_usd") is None) != (table.get("price_out_usd") is None):
        raise ProfileError(where, "price_out_usd", "and price_in_usd must be given together")
    if table.get("price_in_usd") is not None and not table.get("price_source"):
        raise ProfileError(where, "price_source", "is missing: a price needs its source")
    if table.get("kw_all_in") is not None and not table.get("kw_source"):
        raise ProfileError(where, "kw_source", "is missing: a power needs its source")
