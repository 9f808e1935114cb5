"""Scenarios: what their files may say, and what those we ship do say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import webapp
from webapp.core.scenario import FIGURES, PREVIOUS, Scenario, Step, from_data

FILES = sorted((Path(webapp.__file__).parent / "scenarios").glob("*.toml"))
DATA: dict[str, Any] = {
    "slug": "mine",
    "key": 1,
    "title": "Mine",
    "blurb": "One sentence.",
    "figure": "chat",
    "steps": [{"prompt": "Hi"}],
}


def load(path: Path) -> Scenario:
    return from_data(tomllib.loads(path.read_text("utf-8")))


def test_the_least_that_a_file_must_say():
    assert from_data(DATA) == Scenario("mine", 1, "Mine", "One sentence.", "chat", (Step("Hi"),), "", 400, 0.0)


def test_everything_that_a_file_may_say():
    step = {"prompt": "Hi", "label": "Greeting", "due_s": 2.5, "tool_ms": 300}
    found = from_data({**DATA, "system": "Be brief.", "max_tokens": 50, "budget_ms": 800, "steps": [step]})
    assert found.steps == (Step("Hi", "Greeting", 2.5, 300),)
    assert (found.system, found.max_tokens, found.budget_ms) == ("Be brief.", 50, 800)


WRONG = [
    ({"colour": "red"}, "unknown field 'colour'"),
    ({"figure": "speed"}, "field 'figure' is 'speed'"),
    ({"steps": []}, "field 'steps' is empty"),
    ({"steps": [{"prompt": "Hi", "colour": "red"}]}, "colour"),
    ({"steps": [{"label": "no prompt"}]}, "prompt"),
    ({"steps": ["Hi"]}, "field 'steps'"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_wrong_file_is_refused_with_the_name_of_the_field(change: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        from_data({**DATA, **change})


@pytest.mark.parametrize("field", sorted(DATA))
def test_a_missing_field_is_named(field: str):
    with pytest.raises(ValueError, match=f"missing field '{field}'"):
        from_data({name: value for name, value in DATA.items() if name != field})


def test_the_answer_before_stands_in_for_its_place_in_the_prompt():
    assert Step("Sum up: {previous}. Go on.").prompt_after("a {previous} b") == "Sum up: a {previous} b. Go on."
    assert Step("Just ask. {other}").prompt_after("x") == "Just ask. {other}"


@pytest.mark.parametrize("key", [0, 10, "1", None, [1]])
def test_a_key_that_no_keyboard_has_is_refused(key: Any):
    with pytest.raises(ValueError, match="field 'key'"):
        from_data({**DATA, "key": key})


def test_the_five_that_a_presenter_knows_stay_on_their_keys():
    known = {scenario.key: (scenario.slug, scenario.figure) for scenario in map(load, FILES)}
    assert {key: known[key] for key in range(1, 6)} == {
        1: ("chat", "chat"),
        2: ("translation", "caption_lag"),
        3: ("agent", "agent"),
        4: ("voice", "voice"),
        5: ("code", "code"),
    }


def test_the_scenarios_of_ours_are_on_keys_in_a_row_and_every_figure_has_one():
    scenarios = [load(path) for path in FILES]
    assert {scenario.figure for scenario in scenarios} == set(FIGURES)
    assert sorted(scenario.key for scenario in scenarios) == list(range(1, len(FILES) + 1))
    assert [path.stem for path in FILES] == [load(path).slug for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_of_ours_can_be_run_as_it_stands(path: Path):
    scenario = load(path)
    assert scenario.title
    assert scenario.blurb.endswith(".")
    assert all(step.prompt.strip() for step in scenario.steps)
    assert PREVIOUS not in scenario.steps[0].prompt  # nothing comes before it
    assert scenario.steps[0].tool_ms == 0
    due = [step.due_s for step in scenario.steps]
    assert due == sorted(due)
    assert 0 < scenario.max_tokens <= 4096


def test_the_figures_have_the_steps_that_they_are_about():
    found = {scenario.figure: scenario for scenario in map(load, FILES)}
    assert 8 <= len(found["agent"].steps) <= 12
    assert all(PREVIOUS in step.prompt for step in found["agent"].steps[1:])
    assert all(step.due_s > 0 for step in found["caption_lag"].steps)
    assert found["voice"].budget_ms == 800
    assert len(found["chat"].steps) == len(found["code"].steps) == len(found["voice"].steps) == 1
