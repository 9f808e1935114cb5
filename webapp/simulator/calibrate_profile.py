"""Write a fitted serving down as a profile that the simulator takes. Pure: makes the text of a TOML file."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from webapp.simulator.calibrate import Fit, Forecast, Probe
from webapp.simulator.hardware import Machine, Model, Serving

_INDENTED = ("machine", "model", "speculation")


def profile_text(
    names: Mapping[str, Any], fit: Fit, probes: tuple[Probe, ...], beyond: Forecast, source: str, date: str
) -> str:
    """Return a whole profile: `names` (label, hardware, family, and what else is known of the endpoint), the fitted
    numbers, where they come from, and how far they miss what was measured."""
    serving = fit.serving
    head = {
        **names,
        **_changed(serving, leave_out=_INDENTED),
        "api_ms": round(fit.api_ms, 3),
        "source": source,
        "date": date,
        "calibrated_on": calibrated_on(probes),
        "error": error_of(fit, beyond),
        "status": "C",
        "confidence": "M",
    }
    parts = [_lines(head)]
    for name in _INDENTED:
        value = getattr(serving, name)
        if value is not None:
            parts.append(f"[{name}]\n{_lines(_changed(value, leave_out=('slug',)))}")
    return "\n".join(parts)


def calibrated_on(probes: tuple[Probe, ...]) -> str:
    """Return in words what was measured."""
    return "; ".join(
        f"{probe.users} at once, {probe.prompt_tokens}/{probe.output_tokens} tokens: "
        f"first token {probe.ttft_s * 1e3:.1f} ms, then {probe.tpot_s * 1e3:.3f} ms a token"
        for probe in probes
    )


def error_of(fit: Fit, beyond: Forecast) -> str:
    """Return in words how well the fitted engine gives back what was measured, and what it says beyond that."""
    crowd = (
        "; many at once did not get their first tokens when the engine says: something else takes its time, such as a "
        "front end of one process (token_us), and the error may grow with the users"
    )
    return (
        f"{fit.error:.1%} mean over the {len(fit.misses)} figures of its probes; "
        f"worst {fit.worst} {fit.misses[fit.worst]:+.1%}; at {beyond.users} users {beyond.tpot_s * 1e3:.3g} ms a token "
        f"±{beyond.error:.0%} by the probes' noise and what they miss; nothing else measured"
        f"{'' if fit.explains_crowd else crowd}"
    )


def _changed(value: Serving | Machine | Model | Any, leave_out: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    found = {}
    for field in fields(value):
        content = getattr(value, field.name)
        usual = field.default is not MISSING and content == field.default
        if not usual and content is not None and field.name not in leave_out:
            found[field.name] = content
    return found


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's texts are TOML's basic strings, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
