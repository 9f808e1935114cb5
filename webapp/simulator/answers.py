"""The prepared answers: TOML files in `answers/`, found by a phrase of the prompt. Pure after loading.

A file holds [[answer]] tables: `match` (phrases, any of which will do; one that begins with "=" must be the
whole prompt), `text`, and `thoughts` (a list of sentences, for models that reason). The table without
`match` answers everything else; `continuations` is what follows when the length is forced.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_DIR = Path(__file__).with_name("answers")

# A phrase counts only near the beginning of a prompt: a step of a chain quotes the answers before it at
# its end, and those hold the phrases of other steps.
SEARCHED_CHARS = 600


class AnswerError(ValueError):
    """A prepared answer that cannot be used."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prepared answer."""

    match: tuple[str, ...]
    text: str
    thoughts: tuple[str, ...]


class AnswerBook:
    """All prepared answers."""

    def __init__(self, answers: Sequence[Answer], fallback: Answer, continuations: Sequence[str]) -> None:
        self.fallback = fallback
        self.continuations = tuple(continuations)
        self.answers = tuple(answers)
        phrases = [(phrase, answer) for answer in answers for phrase in answer.match]
        self._whole = {normalise(phrase): answer for phrase, answer in phrases if phrase.startswith("=")}
        # The longest phrase is the most specific one. The spaces keep "hi" out of "this".
        self._parts = sorted(
            ((f" {normalise(phrase)} ", answer) for phrase, answer in phrases if not phrase.startswith("=")),
            key=lambda pair: -len(pair[0]),
        )

    def find(self, prompt: str) -> Answer:
        """Return the answer whose longest phrase stands near the prompt's beginning."""
        text = normalise(prompt[:SEARCHED_CHARS])
        answer = self._whole.get(text) if len(prompt) <= SEARCHED_CHARS else None
        if answer is None:
            found = (answer for phrase, answer in self._parts if phrase in f" {text} ")
            answer = next(found, self.fallback)
        return answer if answer.thoughts else Answer(answer.match, answer.text, self.fallback.thoughts)


def normalise(text: str) -> str:
    """Return a text without differences of case, spacing and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def load_book(folder: Path = ANSWER_DIR) -> AnswerBook:
    """Read every file of the folder. Raises AnswerError."""
    answers: list[Answer] = []
    fallbacks: list[Answer] = []
    continuations: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        continuations += table.get("continuations", [])
        for entry in table.get("answer", []):
            answer = _answer(entry, path.name)
            (answers if answer.match else fallbacks).append(answer)
    if len(fallbacks) != 1:
        raise AnswerError(f"{folder}: exactly one answer must have no match, not {len(fallbacks)}")
    if not any(continuations):
        raise AnswerError(f"{folder}: no continuations")
    return AnswerBook(answers, fallbacks[0], continuations)


def _answer(entry: dict[str, Any], where: str) -> Answer:
    match, text, thoughts = entry.get("match", []), entry.get("text", ""), entry.get("thoughts", [])
    if not text or not all(normalise(phrase) for phrase in match):
        raise AnswerError(f"{where}: an answer needs a text, and its phrases words")
    # Sentences are joined by the space that begins each one after the first.
    return Answer(
        tuple(match),
        text.strip(),
        tuple(thought.strip() if at == 0 else " " + thought.strip() for at, thought in enumerate(thoughts)),
    )
