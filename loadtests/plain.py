"""Locust as its users know it: without a file of parameters, options come from the command line and the web page."""

from __future__ import annotations

import urllib.request
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import orjson
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.users import WIRE_CLASSES
from webapp.core.loadplan import CAPS, Behaviour, Plan, Target

FOREVER_S = CAPS.duration_s
MOST = 8  # backends, where nobody says which
DEFAULT_WIRE = "sse"


def add_options(parser: LocustArgumentParser) -> None:
    """Add ours to Locust's options; its web page shows them too."""
    group = parser.add_argument_group("Splitsecond")
    group.add_argument(
        "--wire",
        choices=["sse", "ws", "direct"],
        default=DEFAULT_WIRE,
        help="which of the app's wires; a user class that is named has its own",
    )
    group.add_argument(
        "--backend",
        default="",
        help=f"backends to ask, separated by commas (default: the first listed, one for each user, at most {MOST})",
    )
    group.add_argument("--mix", default="chat", help="prompt mix: chat, conversation, code, 8k, fixed:IN/OUT, …")
    group.add_argument("--slo", default="", help="such as voice, or ttft:500 tpot:50 e2e:10000 (ms)")
    group.add_argument("--think", type=float, default=0.0, help="mean pause between a user's questions, seconds")
    group.add_argument("--patience", type=float, default=0.0, help="mean patience with the first token, seconds")
    group.add_argument("--turns", type=int, default=1, help="questions in a conversation")
    group.add_argument("--seed", type=int, default=0, help="the same seed asks the same questions")
    group.add_argument("--out", default="", help="folder for requests.jsonl, live.jsonl and summary.json")


def plan_of(environment: Environment) -> Plan:
    """Return the plan that Locust's options describe: closed loops without an end of their own."""
    options: Any = environment.parsed_options
    host = str(environment.host or options.host or "").rstrip("/")
    if not host:
        raise ValueError("Say where: -H http://127.0.0.1:8000")
    wire = wire_of(environment)
    slugs = [slug.strip() for slug in options.backend.split(",") if slug.strip()]
    base = host if wire == "direct" else f"{host}/v1"
    slugs = slugs or models(base)[: min(MOST, options.num_users or MOST)]
    scheme, parts = ("wss" if host.startswith("https") else "ws"), urlsplit(host)
    url = f"{scheme}://{parts.netloc}/ws/arena/" if wire == "ws" else base
    run_s = float(getattr(options, "run_time", 0) or 0)
    plan = Plan(
        targets=tuple(Target(slug, url, slug) for slug in slugs),
        wire=wire,
        users=0,
        behaviour=Behaviour(think_s=options.think, patience_s=options.patience),
        duration_s=run_s or FOREVER_S,
        warmup_s=0.0,
        cooldown_s=0.0,
        mix=options.mix,
        turns=options.turns,
        slo=options.slo,
        seed=options.seed,
    )
    return replace(plan, grace_s=0.0 if run_s else FOREVER_S).checked()


def wire_of(environment: Environment) -> str:
    """Return the wire of the user classes that were named, on the command line or in the page; without, --wire's.

    Raises ValueError where they have not one wire.
    """
    options: Any = environment.parsed_options
    chosen = environment.user_classes if options.user_classes else []
    named = {wire: user.__name__ for user in chosen for wire, base in WIRE_CLASSES.items() if issubclass(user, base)}
    if len(named) > 1:
        raise ValueError(f"{' and '.join(sorted(named.values()))} have different wires; name one of them.")
    wire = next(iter(named), options.wire)
    if options.wire not in (wire, DEFAULT_WIRE):
        raise ValueError(f"{named[wire]} has the wire {wire}; leave --wire {options.wire} out.")
    return str(wire)


def models(base: str) -> list[str]:
    """Return the models that an endpoint lists. Raises ValueError where nothing there does."""
    try:
        with urllib.request.urlopen(f"{base}/models", timeout=5) as answer:  # noqa: S310 (the operator's own host)
            return [entry["id"] for entry in orjson.loads(answer.read())["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{base}/models lists no models ({error}); name them with --backend") from None


def serves_ui(environment: Environment) -> bool:
    """Whether Locust's web page is in charge of starting and stopping."""
    return environment.web_ui is not None
