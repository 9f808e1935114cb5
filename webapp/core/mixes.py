"""What synthetic users ask: prompts and lengths, drawn from seeded distributions. Pure given its data.

Every question has a number (or a user and a place in that user's conversation), and number and seed alone decide it:
two workers ask together exactly what one would have asked, and paired backends are asked the same. Lengths are tokens
at four characters each, as the simulator counts them; a real server's own count comes back with the answer.
"""

# ruff: noqa: S311 (seeded draws, not secrets)
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import exp, inf, log, nan
from random import Random
from typing import Any

from webapp.core.scenario import PREVIOUS, Scenario
from webapp.core.tokens import CHARS_PER_TOKEN

MAX_INPUT_TOKENS = 9_900  # the page takes prompts of 40,000 characters
MAX_OUTPUT_TOKENS = 4_096
MAX_FILE_PROMPTS = 10_000
MAX_PROMPT_CHARS = 40_000
POOL_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Length:
    """A distribution of token counts: `a` and `b` are its two parameters, results are cut to `low`..`high`.

    fixed a · uniform a to b · normal of mean a and deviation b · lognormal of median a and deviation b of the log.
    """

    kind: str
    a: float
    b: float = 0.0
    low: int = 1
    high: int = MAX_INPUT_TOKENS

    def draw(self, random: Random) -> int:
        if self.kind == "uniform":
            value = random.uniform(self.a, self.b)
        elif self.kind == "normal":
            value = random.gauss(self.a, self.b)
        elif self.kind == "lognormal":
            value = exp(min(random.gauss(log(self.a), self.b), log(self.high)))
        else:
            value = self.a
        return min(max(round(value), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Measured:
    """A distribution of token counts as it was measured: (percent, tokens) points, joined by straight lines over the
    logarithm of the tokens; results are cut to `high`.
    """

    points: tuple[tuple[float, int], ...]
    high: int = MAX_INPUT_TOKENS

    def draw(self, random: Random) -> int:
        percent = 100 * random.random()
        (from_, few), (to, many) = next(pair for pair in pairwise(self.points) if percent <= pair[1][0])
        share = (percent - from_) / (to - from_)
        return min(round(exp(log(few) * (1 - share) + log(many) * share)), self.high)


@dataclass(frozen=True, slots=True)
class Question:
    """One user message and how long its answer may be. `exactly` asks the server for just that length.

    `opens` is True where it begins a conversation; {previous} in the text stands for the answer before.
    """

    text: str
    max_tokens: int
    exactly: bool = False
    system: str = ""
    opens: bool = True

    def after(self, previous: str) -> str:
        return self.text.replace(PREVIOUS, previous)


@dataclass(frozen=True, slots=True)
class Mix:
    """Draws questions. With `fixed` questions (a file, a scenario) those are asked in turn or at random; else lengths
    are drawn and filled with words. `prefix_tokens` of every prompt are the same for all (a shared system prompt, as
    prefix caches like them); `turns` is the length of a conversation.
    """

    name: str
    inputs: Length | Measured = Length("fixed", 64)
    outputs: Length | Measured = Length("fixed", 128, high=MAX_OUTPUT_TOKENS)
    prefix_tokens: int = 0
    turns: int = 1
    fixed: tuple[Question, ...] = ()
    in_order: bool = False

    def question(
        self, seed: int, number: int, place: int = 0, input_tokens: int | None = None, output_tokens: int | None = None
    ) -> Question:
        """Return question `place` of conversation `number`; a trace's own lengths may replace the drawn ones."""
        random = Random(f"question {seed} {number} {place}")
        turn = place % self.turns
        if self.fixed:
            if self.in_order:
                return self.fixed[place % len(self.fixed)]
            return self.fixed[random.randrange(len(self.fixed))]
        inputs = input_tokens if input_tokens is not None else self.inputs.draw(random)
        outputs = output_tokens if output_tokens is not None else self.outputs.draw(random)
        head = f"[{random.getrandbits(32):08x}] "  # no two prompts begin alike, unless a prefix is wanted
        prefix = synthetic_text(Random(f"prefix {seed}"), self.prefix_tokens) if self.prefix_tokens else ""
        rest = max(1, min(inputs, MAX_INPUT_TOKENS) - self.prefix_tokens)
        text = (head + synthetic_text(random, rest))[: max(len(head), rest * CHARS_PER_TOKEN)]
        return Question(text, min(max(1, outputs), MAX_OUTPUT_TOKENS), True, prefix, opens=turn == 0)


# An hour of Azure's production traces of 2023-11-16 (Patel et al., Splitwise, ISCA 2024; Azure/AzurePublicDataset,
# data/AzureLLMInferenceTrace_conv.csv of 19,366 and _code.csv of 8,819 requests). No textbook distribution fits: half
# of the conversations' answers have 60 to 200 tokens, a quarter 370 to 430. Inputs and outputs hardly depend on each
# other there (correlations of -0.11 and 0.00), and are drawn apart.
CONVERSATION_INPUTS = Measured(
    ((0, 2), (1, 29), (10, 207), (25, 396), (50, 1020), (75, 1189), (90, 2735), (95, 4083), (99, 4142), (99.9, 6212),
     (100, 14050))
)  # fmt: skip
CONVERSATION_OUTPUTS = Measured(
    ((0, 7), (1, 16), (10, 54), (25, 85), (50, 129), (75, 395), (90, 424), (95, 451), (99, 601), (99.9, 954),
     (100, 1000)), high=MAX_OUTPUT_TOKENS
)  # fmt: skip
CODE_INPUTS = Measured(
    ((0, 3), (1, 17), (10, 147), (25, 578), (50, 1469), (75, 2745), (90, 5194), (95, 7315), (99, 7436), (99.9, 7437),
     (100, 7437))
)  # fmt: skip
CODE_OUTPUTS = Measured(
    ((0, 6), (5, 6), (10, 7), (25, 9), (50, 13), (75, 24), (90, 55), (95, 90), (99, 252), (99.5, 361), (99.9, 831),
     (100, 1899)), high=MAX_OUTPUT_TOKENS
)  # fmt: skip
NAMED: dict[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("chat", Length("lognormal", 40, 0.6, low=8, high=400), Length("lognormal", 120, 0.5, low=16, high=600)),
        Mix("conversation", CONVERSATION_INPUTS, CONVERSATION_OUTPUTS),
        Mix("code", CODE_INPUTS, CODE_OUTPUTS),
        Mix("8k", Length("uniform", 7800, 8200), Length("uniform", 150, 250)),
        Mix("8k-prefix", Length("uniform", 7800, 8200), Length("uniform", 150, 250), prefix_tokens=7000),
        Mix("one-token", Length("fixed", 32), Length("fixed", 1)),
    )
}
WORDS = (
    "the of and to in is that it was for on are with as be this by at from or one had not but what all were when we "
    "there can an your which their said if do will each about how up out them then she many some so these would other "
    "into has more her two like him see time could no make than first been its who now people my made over did down "
    "only way find use may water long little very after words called just where most know"
)
_SPEC = re.compile(
    r"(?P<kind>fixed|uniform|normal|lognormal):(?P<in_a>[\d.]+)(?:-(?P<in_b>[\d.]+))?/(?P<out_a>[\d.]+)(?:-(?P<out_b>[\d.]+))?"
)
FORMS = "fixed:IN/OUT, uniform:A-B/A-B, normal:MEAN-SD/MEAN-SD, lognormal:MEDIAN-SIGMA/MEDIAN-SIGMA"


def parse(text: str, scenarios: Mapping[str, Scenario] | None = None, turns: int = 1) -> Mix:
    """Return the mix that `text` names: one of NAMED, a form such as `normal:500-100/200-50`, `scenario:SLUG`,
    each with `+prefix:TOKENS` where wanted. Raises ValueError with one sentence.
    """
    name, asked, prefix = text.strip().partition("+prefix:")
    if asked and not (prefix.isascii() and prefix.isdigit() and len(prefix) < 9):
        raise ValueError(f"+prefix wants a number of tokens, not {prefix[:20]!r}.")
    prefix_tokens = int(prefix) if asked else 0
    if name in NAMED:
        mix = NAMED[name]
        prefix_tokens = prefix_tokens or mix.prefix_tokens
        return Mix(text, mix.inputs, mix.outputs, prefix_tokens, turns)
    if name.startswith("scenario:"):
        return from_scenario(name.removeprefix("scenario:"), scenarios or {})
    form = _SPEC.fullmatch(name)
    if form is None:
        raise ValueError(f"There is no mix {text!r}; there are {', '.join(NAMED)}, scenario:SLUG, {FORMS}.")
    inputs = _length(form["kind"], form["in_a"], form["in_b"], MAX_INPUT_TOKENS)
    outputs = _length(form["kind"], form["out_a"], form["out_b"], MAX_OUTPUT_TOKENS)
    return Mix(text, inputs, outputs, prefix_tokens, turns)


def from_scenario(slug: str, scenarios: Mapping[str, Scenario]) -> Mix:
    """Return a prepared scenario as a mix: its steps one after the other, as one conversation."""
    scenario = scenarios.get(slug)
    if scenario is None:
        raise ValueError(f"There is no scenario {slug!r}; there are {', '.join(scenarios) or 'none here'}.")
    questions = tuple(
        Question(step.prompt, scenario.max_tokens, system=scenario.system, opens=place == 0)
        for place, step in enumerate(scenario.steps)
    )
    return Mix(f"scenario:{slug}", turns=len(questions), fixed=questions, in_order=True)


def from_file(text: str, default_tokens: int = 256) -> tuple[Question, ...]:
    """Read a user's own prompts: JSON lines, or ShareGPT's JSON.

    A line is a text, or an object with `prompt` (or `messages`, or ShareGPT's `conversations`) and optionally
    `max_tokens` (or `output_tokens`). Of a conversation the first message of the user is taken, and the length of the
    answer that follows it. Raises ValueError that names the entry.
    """
    questions = []
    for number, entry in enumerate(_entries(text), 1):
        try:
            question = _question(entry, default_tokens)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"Entry {number} of the prompts has a max_tokens that is no number of tokens.") from None
        if question is None:
            raise ValueError(f"Entry {number} of the prompts has no prompt, messages or conversations.")
        questions.append(question)
        if len(questions) == MAX_FILE_PROMPTS:
            break
    if not questions:
        raise ValueError("The file of prompts is empty.")
    return tuple(questions)


def _entries(text: str) -> Iterator[Any]:
    whole = text.lstrip().startswith("[")
    parts = [text] if whole else [line for line in text.splitlines() if line.strip()]
    for number, part in enumerate(parts, 1):
        try:
            entry = json.loads(part)
        except ValueError as error:
            where = "The file of prompts" if whole else f"Line {number} of the prompts"
            raise ValueError(f"{where} is not JSON ({error}).") from None
        yield from entry if whole else [entry]


def synthetic_text(random: Random, tokens: int) -> str:
    """Return about `tokens` tokens of English-looking words: a window of a fixed text, so that it costs no time."""
    pool = _pool()
    chars = min(max(1, tokens) * CHARS_PER_TOKEN, len(pool) - 1)
    start = random.randrange(len(pool) - chars)
    return pool[start : start + chars]


@cache
def _pool() -> str:
    random = Random("pool")
    words = WORDS.split()
    found: list[str] = []
    length = 0
    while length < POOL_CHARS:
        word = random.choice(words)
        word = word + "." if random.random() < 0.08 else word
        found.append(word)
        length += len(word) + 1
    return " ".join(found)


def _length(kind: str, a: str, b: str | None, high: int) -> Length:
    try:
        first, second = float(a), float(b) if b else 0.0
    except ValueError:
        first = second = nan
    wrong = {"fixed": b is not None, "uniform": second < first}.get(kind, False)
    if not 0 < first < inf or not second < inf or wrong:
        raise ValueError(f"{a}{f'-{b}' if b else ''} is no {kind} length; there are {FORMS}.")
    return Length(kind, first, second, high=high)


def _question(entry: Any, default_tokens: int) -> Question | None:
    if isinstance(entry, str):
        return Question(entry[:MAX_PROMPT_CHARS], default_tokens) if entry.strip() else None
    if not isinstance(entry, dict):
        return None
    tokens = entry.get("max_tokens") or entry.get("output_tokens") or default_tokens
    prompt = entry.get("prompt") or entry.get("text")
    turns = entry.get("messages") or entry.get("conversations") or []
    if not prompt and isinstance(turns, list):
        said = [(str(turn.get("role") or turn.get("from")), _content(turn)) for turn in turns if isinstance(turn, dict)]
        first = next((k for k, (who, words) in enumerate(said) if who in ("user", "human") and words), None)
        if first is None:
            return None
        prompt = said[first][1]
        if first + 1 < len(said) and not entry.get("max_tokens"):
            tokens = max(1, len(said[first + 1][1]) // CHARS_PER_TOKEN)
    if not isinstance(prompt, str) or not prompt.strip():
        return None
    return Question(prompt[:MAX_PROMPT_CHARS], min(max(1, int(tokens)), MAX_OUTPUT_TOKENS))


def _content(turn: Mapping[str, Any]) -> str:
    content = turn.get("content") if "content" in turn else turn.get("value")
    return content if isinstance(content, str) else ""
