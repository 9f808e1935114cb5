"""What the simulator knows: machines, models, and which model is served how on which machine. One TOML file each.

    profiles/machines/h100.toml                 what a data sheet says of one accelerator, and what of it is reached
    profiles/models/llama-70b.toml              the shape of a model
    profiles/served/h100x2-llama-70b.toml       both, with engine, calibration, source and error: a profile

A folder of one's own may hold the same three folders, or profiles at its top; its files come on top of the shipped
ones. A profile may also hold its machine or model itself, as a table in the place of a name. Pure: reads files once at
the start, then only values.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from webapp.simulator.costs import Load, costs_of, kv_capacity
from webapp.simulator.hardware import PRECISIONS, Machine, Model, Serving, Speculation
from webapp.simulator.profile_checks import check_serving
from webapp.simulator.tables import ProfileError, read, refuse_unknown

__all__ = [
    "PROFILE_DIR",
    "Catalogue",
    "Figure",
    "Profile",
    "ProfileError",
    "from_table",
    "load",
    "load_all",
    "slug_of",
]

PROFILE_DIR = Path(__file__).with_name("profiles")

# C: fitted on rows of this very machine. F: fitted on the maker's table. D: defaults only, a true
# prediction. A: set to the published figure, or assumed.
STATUSES = "CFDA"
CONFIDENCES = "HML"
REASONING_FIELDS = ("", "reasoning", "reasoning_content")
TYPICAL_CONTEXT = 1000  # tokens; where a pace is asked for without a load

_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "status": tuple(STATUSES),
        "confidence": tuple(CONFIDENCES),
        "reasoning_field": REASONING_FIELDS,
        "precision": PRECISIONS,
        "arithmetic": ("", *PRECISIONS),
        "dense_precision": ("", *PRECISIONS),
    }
)
_SERVING = frozenset(Serving.__dataclass_fields__)
_FOLDERS = ("machines", "models", "served")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a model's name; + and @ after it ask for a fault and for a pace


@dataclass(frozen=True, slots=True)
class Figure:
    """A published pace of one user, by the maker or by somebody independent."""

    by: str
    tok_s: float
    source: str
    date: str
    users: int = 1  # at once


@dataclass(frozen=True, slots=True)
class Profile:
    """One model served on one kind of machine, and how well that is known."""

    slug: str
    label: str
    hardware: str  # in words, engine included
    family: str  # lanes of one family may be compared without a warning
    serving: Serving
    api_ms: float  # HTTP, tokenising, scheduling; for a cloud service the network too
    source: str
    date: str
    calibrated_on: str
    error: str
    status: str
    confidence: str
    api_sigma: float = 0.1  # of the log of api_ms
    token_us: float = 0.0  # work of a front end of one process for a token; 0: nobody waits in it
    chunk_tokens: int = 1  # tokens in one streamed chunk
    reasoning_field: str = ""  # name of the delta field; "" for a model that does not reason
    reasoning_tokens: int = 0  # about; thoughts end with a whole sentence
    price_in_usd: float | None = None  # per million prompt tokens
    price_out_usd: float | None = None  # per million output tokens
    price_source: str = ""
    figures: tuple[Figure, ...] = ()
    pace: str = ""  # "vendor" or "measured" where it is set to that figure of it (paces.py), never in a file

    @property
    def reasons(self) -> bool:
        return bool(self.reasoning_field)

    @property
    def context_tokens(self) -> int:
        """The longest prompt and answer together: what the model takes, or what the KV cache holds."""
        return min(self.serving.model.context_tokens, max(256, int(kv_capacity(self.serving))))

    @property
    def kw_all_in(self) -> float | None:
        """Power of the whole replica, host and cooling included; None where it is not known."""
        each = self.serving.machine.kw_all_in
        return None if each is None else each * self.serving.devices

    @property
    def tok_s(self) -> float:
        """Output tokens per second of one user alone, 1 / TPOT, over a short context."""
        speculation = self.serving.speculation
        tokens = speculation.mean_tokens() if speculation else 1.0
        return tokens * 1e9 / sum(costs_of(self.serving).split(Load(1, TYPICAL_CONTEXT, 0, 0.0)))


_FIELDS = (_SERVING | frozenset(Profile.__dataclass_fields__)) - {"serving", "pace"}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The machines and models that profiles may name."""

    machines: Mapping[str, Machine]
    models: Mapping[str, Model]

    @classmethod
    def load(cls, *folders: Path) -> "Catalogue":
        """Read `machines` and `models` of each folder; later ones win. Raises ProfileError."""
        machines: dict[str, Machine] = {}
        models: dict[str, Model] = {}
        for folder in folders:
            for path in sorted(folder.glob("machines/*.toml")):
                machines[path.stem] = _machine({"slug": path.stem, **_decoded(path)}, path.name)
            for path in sorted(folder.glob("models/*.toml")):
                models[path.stem] = _model({"slug": path.stem, **_decoded(path)}, path.name)
        return cls(MappingProxyType(machines), MappingProxyType(models))


def load(path: Path, catalogue: Catalogue | None = None) -> Profile:
    """Read one profile. Its slug is the file's name. Raises ProfileError with the field at fault."""
    return from_table({"slug": slug_of(path), **_decoded(path)}, path.name, catalogue)


def slug_of(path: Path) -> str:
    """Return the name under which a profile's file is served. Raises ProfileError where no request could ask for it."""
    if path.suffix != ".toml" or not _SLUG.fullmatch(path.stem):
        raise ProfileError(path.name, "file", "needs a name of letters, digits, '.', '_' and '-' that ends in .toml")
    return path.stem


def load_all(folder: Path | None = None) -> dict[str, Profile]:
    """Read every profile, the shipped ones and those of `folder`, keyed by slug, the fastest first. Raises ProfileError
    where one is wrong or lies where nothing is read, or `folder` holds none.
    """
    if folder is not None:
        _check_places(folder)
    folders = [PROFILE_DIR, *([folder] if folder else [])]
    catalogue = Catalogue.load(*folders)
    paths = {slug: path for each in folders for slug, path in _named(each).items()}
    found = sorted((load(path, catalogue) for path in paths.values()), key=lambda profile: -profile.tok_s)
    return {profile.slug: profile for profile in found}


def _check_places(folder: Path) -> None:
    """Raise ProfileError where a folder of one's own holds no files, or one that would never be read."""
    places = [path.relative_to(folder) for path in sorted(folder.rglob("*.toml"))]
    if not places:
        raise ProfileError(str(folder), "*.toml", "is missing: a profile is such a file")
    for place in places:
        if len(place.parts) > 1 and str(place.parent) not in _FOLDERS:
            raise ProfileError(str(place), "file", f"is not read there: only at the top and in {', '.join(_FOLDERS)}")


def _named(folder: Path) -> dict[str, Path]:
    """Return the files of a folder's profiles, keyed by slug."""
    found: dict[str, Path] = {}
    for path in (*folder.glob("*.toml"), *folder.glob("served/*.toml")):
        if path.stem in found:
            raise ProfileError(str(path), "file", f"has the name of {found[path.stem]}: give each profile its own")
        found[path.stem] = path
    return found


def from_table(table: Mapping[str, Any], where: str, catalogue: Catalogue | None = None) -> Profile:
    """Check a decoded table and make it a Profile; `where` begins the error's message."""
    catalogue = catalogue or Catalogue.load(PROFILE_DIR)
    refuse_unknown(table, _FIELDS, where, "profile")
    serving = {name: value for name, value in table.items() if name in _SERVING}
    rest = {name: value for name, value in table.items() if name not in _SERVING}
    made = _serving(serving, where, catalogue)
    figures = tuple(
        read(Figure, _table(where, "figures", entry), f"{where} figures", {"by": ("vendor", "measured")})
        for entry in _list(where, "figures", rest.pop("figures", []))
    )
    profile = read(Profile, {**rest, "serving": made, "figures": figures}, where, _CHOICES)
    _check_together(where, table)
    return profile


def _serving(table: Mapping[str, Any], where: str, catalogue: Catalogue) -> Serving:
    values = dict(table)
    for name, known, make in (("machine", catalogue.machines, _machine), ("model", catalogue.models, _model)):
        if isinstance(values.get(name), dict):
            values[name] = make({"slug": "own", **values[name]}, f"{where} {name}")
        elif name in values and (not isinstance(values[name], str) or values[name] not in known):
            raise ProfileError(where, name, f"must be a table or one of {', '.join(sorted(known))}")
        elif name in values:
            values[name] = known[values[name]]
    if "speculation" in values:
        values["speculation"] = read(
            Speculation, _table(where, "speculation", values["speculation"]), f"{where} speculation", {}
        )
    serving = read(Serving, values, where, _CHOICES)
    check_serving(where, serving)
    return serving


def _machine(table: Mapping[str, Any], where: str) -> Machine:
    machine = read(Machine, table, where, {"kind": ("bandwidth", "latency")})
    if machine.kind == "bandwidth":
        for name in ("bandwidth_tb_s", "bf16_tflops"):
            if not getattr(machine, name):
                raise ProfileError(where, name, "must be above 0 on a bandwidth machine")
    return machine


def _model(table: Mapping[str, Any], where: str) -> Model:
    model = read(Model, table, where, _CHOICES)
    if model.experts_per_token > model.experts:
        raise ProfileError(where, "experts_per_token", "must not exceed experts")
    if bool(model.experts) != bool(model.expert_b) or bool(model.experts) != bool(model.experts_per_token):
        raise ProfileError(where, "experts", "experts_per_token and expert_b must be given together")
    for name in ("active_b", "expert_b"):
        if getattr(model, name) > model.parameters_b:
            raise ProfileError(where, name, "must not exceed parameters_b")
    if bool(model.window_share) != bool(model.window_tokens):
        raise ProfileError(where, "window_tokens", "and window_share must be given together")
    return model


def _decoded(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ProfileError(path.name, "file", f"is not TOML: {problem}") from None
    except RecursionError:
        raise ProfileError(path.name, "file", "holds values too deep inside each other") from None
    except ValueError:  # Python reads no decimal number of more than 4,300 digits
        raise ProfileError(path.name, "file", "holds a number of too many digits") from None
    except OSError as problem:
        raise ProfileError(path.name, "file", f"cannot be read: {problem.strerror}") from None
    if "slug" in table:
        raise ProfileError(path.name, "slug", "is the file's name, and stands nowhere else")
    return table


def _table(where: str, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProfileError(where, name, "must be a table")
    return value


def _list(where: str, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ProfileError(where, name, "must be a list of tables")
    return value


def _check_together(where: str, table: Mapping[str, Any]) -> None:
    if bool(table.get("reasoning_field")) != bool(table.get("reasoning_tokens")):
        raise ProfileError(where, "reasoning_tokens", "and reasoning_field must be given together")
    if (table.get("price_in_usd") is None) != (table.get("price_out_usd") is None):
        raise ProfileError(where, "price_out_usd", "and price_in_usd must be given together")
    if table.get("price_in_usd") is not None and not table.get("price_source"):
        raise ProfileError(where, "price_source", "is missing: a price needs its source")
