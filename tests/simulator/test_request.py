from typing import Any

import orjson
import pytest

from tests.simulator.examples import PROFILES, asked, body
from webapp.simulator.answers import SEARCHED_CHARS
from webapp.simulator.request import BadRequest, parse_chat, parse_text


def refusal(table: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        parse_chat(orjson.dumps(table), PROFILES)
    return refused.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", 10**12),
        ("max_tokens", "12"),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_completion_tokens", []),
        ("temperature", "hot"),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", True),
        ("top_p", 1.01),
        ("presence_penalty", 3),
        ("frequency_penalty", {}),
        ("n", 2),
        ("n", 0),
        ("seed", "abc"),
        ("seed", 2**64 - 1),
        ("stop", ""),
        ("stop", 3),
        ("stop", ["x"] * 17),
        ("stop", ["x" * 257]),
        ("stop", [None]),
        ("stream", "yes"),
        ("stream", 1),
        ("stream_options", []),
        ("stream_options", {"include_usage": True}),  # without stream
        ("ignore_eos", 1),
        ("messages", None),
        ("messages", []),
        ("messages", "hello"),
        ("model", None),
        ("model", 5),
        ("model", ""),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    problem = refusal(body(**{field: value}))
    assert problem.param == field
    assert problem.status == 400
    assert problem.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hello", "messages[0]"),
        ({}, "messages[0].role"),
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": ["text"]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
    ],
)
def test_a_wrong_message_is_named_by_its_place(message: Any, param: str) -> None:
    assert refusal({"model": "quick", "messages": [message]}).param == param


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"null", b'{"model": NaN}', b"\xff\xfe", b'"\\ud800"'])
def test_a_body_that_is_not_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_chat(text, PROFILES)
    assert refused.value.status == 400
    assert refused.value.param is None


def test_an_unknown_model_is_not_found() -> None:
    problem = refusal(body(model="gpt-99"))
    assert (problem.status, problem.code, problem.param) == (404, "model_not_found", "model")


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    problem = refusal(body("x" * 600_000))
    assert (problem.code, problem.param) == ("context_length_exceeded", "messages")


def test_an_answer_that_would_leave_the_context_is_refused() -> None:
    problem = refusal(body("x" * 400_000, max_tokens=50_000))
    assert (problem.code, problem.param) == ("context_length_exceeded", "max_tokens")


def test_what_is_null_counts_as_absent() -> None:
    names = ("max_tokens", "temperature", "top_p", "n", "seed", "stop", "stream", "stream_options", "ignore_eos")
    request = asked(**dict.fromkeys(names))
    assert request.seed is None
    assert request.stop == ()
    assert not request.stream


def test_the_newer_name_of_the_limit_wins() -> None:
    assert asked(max_tokens=5, max_completion_tokens=7).max_tokens == 7
    assert asked(max_tokens=5).max_tokens == 5


def test_text_parts_are_read_and_the_last_user_message_is_the_question() -> None:
    messages = [
        {"role": "system", "content": "abcd"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image_url", "image_url": {}}]},
        {"role": "tool", "content": "42"},
    ]
    request = asked(messages=messages)
    assert request.question.strip() == "second"
    assert request.prompt_tokens == 5  # 4 + 5 + 0 + 7 + 2 characters


def test_unknown_fields_are_ignored() -> None:
    assert asked(logit_bias={}, user="me", tools=[]).model == "quick"


def test_a_fault_is_asked_for_by_suffix_or_header() -> None:
    assert asked(model="quick+stall").fault.name == "stall"
    assert asked(model="quick+stall").model == "quick+stall"
    assert parse_chat(orjson.dumps(body()), PROFILES, "reset").fault.name == "reset"
    assert refusal(body(model="quick+explode")).param == "model"
    with pytest.raises(BadRequest) as refused:
        parse_chat(orjson.dumps(body()), PROFILES, "explode")
    assert refused.value.param == "X-Fault"


def text_refusal(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        parse_text(orjson.dumps({"model": "quick", "prompt": "x", **fields}), PROFILES)
    return refused.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", 5),
        ("prompt", []),
        ("prompt", ["one", "two"]),
        ("prompt", [[1], [2]]),
        ("prompt", [1, -2]),
        ("prompt", [1, "two"]),
        ("prompt", [True]),
        ("prompt", [[]]),
        ("prompt", {}),
        ("max_tokens", -1),
        ("echo", True),
        ("best_of", 2),
        ("model", 5),
    ],
)
def test_a_wrong_field_of_a_text_request_is_named(field: str, value: Any) -> None:
    assert text_refusal(**{field: value}).param == field


def test_a_text_request_that_is_too_long_says_so_of_its_prompt() -> None:
    problem = text_refusal(prompt="x" * 600_000)
    assert (problem.code, problem.param) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize(
    ("prompt", "question", "tokens"),
    [("abcdefgh", "abcdefgh", 2), (["abcdefgh"], "abcdefgh", 2), ([5, 6, 7], "", 3), ([[5, 6, 7]], "", 3), ("", "", 1)],
)
def test_a_prompt_is_a_text_or_token_numbers(prompt: Any, question: str, tokens: int) -> None:
    request = parse_text(orjson.dumps({"model": "quick", "prompt": prompt}), PROFILES)
    assert (request.question, request.prompt_tokens) == (question, tokens)


def test_a_text_request_knows_nothing_of_the_newer_limit() -> None:
    table = {"model": "quick", "prompt": "x", "max_tokens": 5, "max_completion_tokens": 7}
    assert parse_text(orjson.dumps(table), PROFILES).max_tokens == 5


def test_no_more_of_a_question_is_kept_than_an_answer_is_looked_up_by() -> None:
    assert len(asked("x" * 100_000).question) == SEARCHED_CHARS + 1
