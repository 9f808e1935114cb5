"""Whether what a serving is made of goes together, and does anything on its machine. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from webapp.simulator.costs import kv_capacity
from webapp.simulator.hardware import Serving
from webapp.simulator.tables import ProfileError

# What the law of a kind of machine (costs.py) never asks for.
_UNREAD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"bandwidth": ("slots", "prefill_tok_s"), "latency": ("arithmetic", "whole_prompts")}
)


def without_unread(serving: Serving) -> Serving:
    """Return a serving that was made for another kind of machine without what its own never reads."""
    return replace(serving, **{name: _usual(name) for name in _UNREAD[serving.machine.kind]})


def check_serving(where: str, serving: Serving) -> None:
    """Raise ProfileError where what a serving is made of does not go together."""
    if serving.machine.kind == "latency" and not serving.prefill_tok_s:
        raise ProfileError(where, "prefill_tok_s", "is missing: a latency machine needs its rate")
    if serving.machine.kind == "latency" and not serving.layer_us:
        raise ProfileError(where, "layer_us", "must be above 0 on a latency machine")
    if serving.machine.kind == "bandwidth" and serving.devices > 1 and not serving.machine.link_gb_s:
        raise ProfileError(where, "link_gb_s", "of the machine must be above 0 for more than one device")
    if serving.devices % serving.data_parallel:
        raise ProfileError(where, "data_parallel", f"must divide the devices, of which there are {serving.devices}")
    if kv_capacity(serving) < 256:
        raise ProfileError(where, "devices", "are too few: weights and a KV cache of 256 tokens do not fit")
    drafts = serving.speculation.draft_tokens if serving.speculation else 0
    if serving.batch_tokens < serving.max_sequences * (drafts + 1) + 1:
        raise ProfileError(where, "batch_tokens", "must leave room for a prompt beside max_sequences tokens")
    _check_read(where, serving)


def _check_read(where: str, serving: Serving) -> None:
    """Raise ProfileError for what would be taken and do nothing."""
    machine = serving.machine
    for name in _UNREAD[machine.kind]:
        if getattr(serving, name) != _usual(name):
            raise ProfileError(where, name, f"does nothing on a {machine.kind} machine: leave it out")
    if serving.arithmetic and not getattr(machine, f"{serving.arithmetic}_tflops"):
        raise ProfileError(where, "arithmetic", f"wants a machine with {serving.arithmetic}_tflops, which this has not")


def _usual(name: str) -> Any:
    """Return what a field of a serving is where nothing is said of it."""
    return Serving.__dataclass_fields__[name].default
