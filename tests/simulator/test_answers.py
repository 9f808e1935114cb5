import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import webapp
from webapp.core.scenario import Scenario, from_data
from webapp.simulator.answers import AnswerError, load_book
from webapp.simulator.profile import load_all
from webapp.simulator.text import split_tokens

BOOK = load_book()
SCENARIOS = [
    from_data(tomllib.loads(path.read_text(encoding="utf-8")))
    for path in sorted((Path(webapp.__file__).parent / "scenarios").glob("*.toml"))
]


def answers_of(scenario: Scenario) -> list[str]:
    answers: list[str] = []
    for step in scenario.steps:
        answers.append(BOOK.find(step.prompt_after(answers[-1] if answers else "")).text)
    return answers


def scenario(slug: str) -> Scenario:
    return next(one for one in SCENARIOS if one.slug == slug)


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.slug)
def test_every_step_has_an_answer_of_its_own_that_fits(one: Scenario) -> None:
    answers = answers_of(one)
    assert BOOK.fallback.text not in answers
    assert len(set(answers)) == len(answers)
    thinking = max(profile.reasoning_tokens for profile in load_all().values())
    assert all(len(split_tokens(text)) + thinking < one.max_tokens for text in answers)


def test_the_agent_takes_ten_steps_that_need_each_other() -> None:
    steps = scenario("agent").steps
    assert len(steps) == 10
    assert all("{previous}" in step.prompt for step in steps[1:])
    assert all(step.tool_ms > 0 for step in steps[1:])


def test_the_talk_is_given_at_150_words_a_minute() -> None:
    words = 0
    for step in scenario("translation").steps:
        words += len(step.prompt.split())
        assert step.due_s == pytest.approx(words / 150 * 60, abs=0.05)


def test_the_code_in_the_code_answer_runs_and_passes_its_own_tests() -> None:
    (text,) = answers_of(scenario("code"))
    code, tests = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "answer"}
    exec(code, names)
    exec(tests, names)
    for given, expected in names["test_merges"].pytestmark[0].args[1]:
        names["test_merges"](given, expected)
    names["test_refuses_an_interval_that_runs_backwards"]()


def test_the_spoken_answer_is_short() -> None:
    (text,) = answers_of(scenario("voice"))
    assert len(re.findall(r"[.?!](?:\s|$)", text)) == 2


def test_a_prompt_that_nobody_prepared_gets_a_long_and_honest_answer() -> None:
    answer = BOOK.find("Please compute the airspeed of an unladen swallow")
    assert answer is BOOK.fallback
    assert "simulated" in answer.text
    assert len(split_tokens(answer.text)) >= 600


def test_case_spacing_and_a_nonce_in_front_do_not_matter() -> None:
    assert BOOK.find("[7f3a9c] EXPLAIN why   latency matters\nto a voice assistant!") is BOOK.find(
        "Explain why latency matters to a voice assistant."
    )


def test_a_greeting_must_be_the_whole_prompt() -> None:
    assert BOOK.find("Hi!") is not BOOK.fallback
    assert BOOK.find("Is this a thing that you hide?") is BOOK.fallback
    assert BOOK.find("Hi, please compute a square root") is BOOK.fallback


def test_phrases_far_down_a_prompt_do_not_count() -> None:
    assert BOOK.find("x " * 400 + "haiku") is BOOK.fallback


def test_every_answer_has_thoughts_for_models_that_reason() -> None:
    assert all(BOOK.find(phrase).thoughts for answer in BOOK.answers for phrase in answer.match)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("continuations = ['more']", "exactly one answer"),
        ("[[answer]]\ntext = 'x'", "no continuations"),
        ("continuations = ['more']\n[[answer]]\nmatch = ['...']\ntext = 'x'", "needs a text"),
        ("continuations = ['more']\n[[answer]]\nmatch = ['a']", "needs a text"),
    ],
)
def test_a_broken_book_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "answers.toml").write_text(text)
    with pytest.raises(AnswerError, match=problem):
        load_book(tmp_path)
