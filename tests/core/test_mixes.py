"""Prompt mixes: lengths follow their distributions, questions depend on seed and number alone, files are read."""

from __future__ import annotations

import json
from random import Random
from statistics import mean, median

import pytest

from webapp.core import mixes
from webapp.core.scenario import Scenario, Step
from webapp.core.tokens import CHARS_PER_TOKEN


def drawn(name: str, count: int = 400) -> tuple[list[float], list[int]]:
    questions = [mixes.parse(name).question(5, number) for number in range(count)]
    return [len(q.text) / CHARS_PER_TOKEN for q in questions], [q.max_tokens for q in questions]


def test_fixed_lengths_are_met_to_the_token() -> None:
    inputs, outputs = drawn("fixed:100/20", 20)
    assert inputs == pytest.approx([100] * 20, abs=1)
    assert set(outputs) == {20}


def test_distributions_have_the_middles_that_their_names_say() -> None:
    assert mean(drawn("uniform:100-300/10-30")[0]) == pytest.approx(200, rel=0.05)
    assert mean(drawn("normal:500-100/200-50")[1]) == pytest.approx(200, rel=0.05)
    assert median(drawn("lognormal:300-0.5/80-0.5")[0]) == pytest.approx(300, rel=0.1)


def test_conversations_and_code_have_the_lengths_of_the_published_traces() -> None:
    """Azure/AzurePublicDataset, AzureLLMInferenceTrace_conv.csv and _code.csv: mean, and tokens by percentile."""
    published: dict[str, tuple[tuple[int, dict[int, int]], tuple[int, dict[int, int]]]] = {
        "conversation": ((1155, {50: 1020, 90: 2735}), (211, {50: 129, 75: 395, 90: 424, 99: 601})),
        "code": ((2048, {50: 1469, 90: 5194}), (28, {50: 13, 75: 24, 90: 55})),
    }
    for name, figures in published.items():
        mix = mixes.NAMED[name]
        for lengths, (average, percentiles) in zip((mix.inputs, mix.outputs), figures, strict=True):
            random = Random(1)
            values = sorted(lengths.draw(random) for _ in range(40_000))
            assert mean(values) == pytest.approx(average, rel=0.08)
            for percent, tokens in percentiles.items():
                assert values[len(values) * percent // 100] == pytest.approx(tokens, rel=0.05), (name, percent)


def test_the_8k_mix_has_prompts_of_about_8000_tokens() -> None:
    inputs, _ = drawn("8k", 20)
    assert min(inputs) > 7700
    assert max(inputs) < 8300


def test_seed_and_number_alone_decide_a_question() -> None:
    mix = mixes.parse("conversation")
    assert mix.question(1, 17) == mixes.parse("conversation").question(1, 17)
    assert mix.question(1, 17) != mix.question(1, 18)
    assert mix.question(1, 17) != mix.question(2, 17)


def test_prompts_begin_differently_unless_a_prefix_is_shared() -> None:
    first, second = (mixes.parse("fixed:200/5").question(1, n) for n in (0, 1))
    assert first.text[:8] != second.text[:8]
    first, second = (mixes.parse("fixed:200/5+prefix:150").question(1, n) for n in (0, 1))
    assert first.system == second.system
    assert len(first.system) == 600


def test_a_conversation_opens_every_so_many_turns() -> None:
    mix = mixes.parse("chat", turns=3)
    assert [mix.question(1, 4, place).opens for place in range(5)] == [True, False, False, True, False]


def test_a_scenario_is_asked_step_by_step_with_the_answer_before() -> None:
    steps = (Step("Plan."), Step("Go on from: {previous}"))
    scenario = Scenario("agent", 3, "Agent", "", "agent", steps, system="Be brief.", max_tokens=77)
    mix = mixes.parse("scenario:agent", {"agent": scenario})
    first, second = mix.question(1, 0, 0), mix.question(1, 0, 1)
    assert (first.text, first.max_tokens, first.opens, first.system) == ("Plan.", 77, True, "Be brief.")
    assert (second.after("the plan"), second.opens) == ("Go on from: the plan", False)


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "fixed:0/5",
        "fixed:5-9/5",
        "fixed:1.2.3/5",
        f"fixed:{'9' * 400}/5",
        "uniform:9-3/1-2",
        "fixed:1",
        "scenario:none",
        "chat+prefix:long",
        "chat+prefix:²",
    ],
)
def test_an_unknown_mix_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        mixes.parse(name)


def test_json_lines_and_sharegpt_files_are_read() -> None:
    lines = '{"prompt": "One", "max_tokens": 9}\n"Two"\n{"messages": [{"role": "user", "content": "Three"}]}\n'
    assert [(q.text, q.max_tokens) for q in mixes.from_file(lines)] == [("One", 9), ("Two", 256), ("Three", 256)]
    turns = [{"from": "human", "value": "Four"}, {"from": "gpt", "value": "x" * 400}]
    assert mixes.from_file(json.dumps([{"conversations": turns}])) == (mixes.Question("Four", 100),)


@pytest.mark.parametrize("text", ["", "[]", '{"answer": "no prompt"}'])
def test_a_file_without_prompts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="prompts"):
        mixes.from_file(text)


@pytest.mark.parametrize("tokens", ['"many"', "[9]", "1e999"])
def test_a_prompt_with_a_length_that_is_none_is_named(tokens: str) -> None:
    with pytest.raises(ValueError, match=r"Entry 2 of the prompts .* max_tokens"):
        mixes.from_file('"One"\n{"prompt": "Two", "max_tokens": ' + tokens + "}\n")


def test_a_length_far_out_in_a_distributions_tail_is_cut() -> None:
    mix = mixes.parse("lognormal:300-900/80-900")
    assert {mix.question(1, number).max_tokens for number in range(50)} == {1, mixes.MAX_OUTPUT_TOKENS}


def test_a_trace_may_set_the_lengths_itself() -> None:
    question = mixes.parse("chat").question(1, 0, input_tokens=500, output_tokens=33)
    assert (round(len(question.text) / 4), question.max_tokens) == (500, 33)
