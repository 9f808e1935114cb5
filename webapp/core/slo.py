"""What counts as good enough: limits on one request's figures, and the share of requests that must meet them.

Written as `ttft:500 tpot:50 e2e:10000` in milliseconds (the form of vLLM's --goodput), with `at:0.99` for the share.
Presets: MLPerf Inference's server and interactive limits (mlcommons/inference_policies, inference_rules.adoc, read
2026-07), and three of our own whose reasons stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

FIGURES = ("ttft", "ttfo", "tpot", "icl", "e2e")
TARGET = 0.95
Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits in ms by figure, all of which a request has to meet; `target` is the share of requests that must.

    `icl` limits the largest gap between two chunks of one answer.
    """

    limits_ms: tuple[tuple[str, float], ...] = ()
    target: float = TARGET
    name: str = ""

    def __bool__(self) -> bool:
        return bool(self.limits_ms)

    def met(self, figures_ms: Mapping[str, float | None], so_far: bool = False) -> bool:
        """Return whether a request is good: each limited figure is known and within its limit.

        `so_far`: the request goes on, and what is not known of it yet is within its limit.
        """
        for figure, limit_ms in self.limits_ms:
            value = figures_ms.get(figure)
            # One token has no time per output token; that is no reason to fail a short answer.
            if value is None and (so_far or figure in ("tpot", "icl")):
                continue
            if value is None or value > limit_ms:
                return False
        return True

    @property
    def text(self) -> str:
        limits = " ".join(f"{figure}:{limit_ms:g}" for figure, limit_ms in self.limits_ms)
        return f"{limits} at:{self.target:g}" if limits else ""

    @property
    def sentence(self) -> str:
        """Say the limits in words, without the share."""
        words = {"ttft": "TTFT", "ttfo": "TTFO", "tpot": "TPOT", "icl": "the longest gap", "e2e": "the whole answer"}
        parts = [f"{words[figure]} ≤ {limit_ms:g} ms" for figure, limit_ms in self.limits_ms]
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 2 else parts)


def _mlperf(model: str, ttft_ms: float, tpot_ms: float) -> Slo:
    return Slo((("ttft", ttft_ms), ("tpot", tpot_ms)), 0.99, f"mlperf:{model}")


PRESETS: dict[str, Slo] = {
    slo.name: slo
    for slo in (
        _mlperf("llama3.1-8b", 2000, 100),
        _mlperf("llama3.1-8b-interactive", 500, 30),
        _mlperf("llama2-70b", 2000, 200),
        _mlperf("llama2-70b-interactive", 450, 40),
        _mlperf("llama3.1-405b", 6000, 175),
        _mlperf("llama3.1-405b-interactive", 4500, 80),
        _mlperf("mixtral-8x7b", 2000, 200),
        _mlperf("deepseek-r1", 2000, 80),
        _mlperf("deepseek-r1-interactive", 1500, 15),
        _mlperf("gpt-oss-120b", 3000, 80),
        _mlperf("gpt-oss-120b-interactive", 2000, 20),
        # The model's share of a voice turn's 800 ms; speech needs some ten tokens a second.
        Slo((("ttfo", 400), ("tpot", 100)), TARGET, "voice"),
        # One second keeps the train of thought; 240 words a minute are about five tokens a second.
        Slo((("ttft", 1000), ("tpot", 200)), TARGET, "reading"),
        # One step of a loop of ten that should end within half a minute.
        Slo((("e2e", 3000),), TARGET, "agent"),
    )
}


def parse(text: str) -> Slo:
    """Return the SLO that `text` names or spells out; "" is none. Raises ValueError with one sentence."""
    words = text.replace(",", " ").split()
    if not words:
        return Slo()
    name = words[0].lower()
    if name in PRESETS:
        preset = PRESETS[name]
        if len(words) > 2 or any(not word.startswith("at:") for word in words[1:]):
            raise ValueError("An SLO is a preset, perhaps with its share (at:0.99), or limits, not both.")
        target = _target(words[1]) if len(words) == 2 else preset.target
        return Slo(preset.limits_ms, target, preset.name)
    limits: dict[str, float] = {}
    target = TARGET
    names = [_figure(word) for word in words]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"An SLO has one limit for each figure; {twice} stands there twice.")
    for word in words:
        _, colon, number = word.partition(":")
        figure = _figure(word)
        if figure == "at" and colon:
            target = _target(word)
            continue
        if not colon or figure not in FIGURES:
            raise ValueError(
                f"There is no SLO {word[:40]!r}: it takes limits in ms, such as ttft:500 tpot:50, or a name, such as "
                "voice; the help on load tests has them all."
            )
        limits[figure] = _positive(number, word)
    if not limits:
        raise ValueError(f"{words[0]!r} is a share of nothing; give it a limit, such as ttft:500 {words[0]}.")
    return Slo(tuple((figure, limits[figure]) for figure in FIGURES if figure in limits), target)


def _figure(word: str) -> str:
    """Return what a limit is about; e2el is what vLLM calls e2e."""
    name = word.lower().partition(":")[0]
    return {"e2el": "e2e"}.get(name, name)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (E. B. Wilson, 1927); (0, 1) without observations."""
    if not n:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _positive(number: str, word: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ValueError(f"{word!r} wants a number of milliseconds, such as ttft:500.")
    return value


def _target(word: str) -> float:
    try:
        value = float(word.removeprefix("at:"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError(f"{word!r} wants a share, such as at:0.95.")
    return value
