"""The chat wire: request bodies out, chunks in, with every habit that servers have."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.upstreams.wire import chunk, usage
from webapp.core import openai
from webapp.core.errors import Outcome, StreamError
from webapp.core.openai import Chunk, Usage
from webapp.core.spec import PromptSpec
from webapp.core.sse import SSEEvent


def parse(payload: Any, name: str = "") -> Chunk:
    return openai.parse(SSEEvent(name, payload if isinstance(payload, bytes) else orjson.dumps(payload)))


# What is asked


def body(**settings: Any) -> dict[str, Any]:
    messages = ({"role": "user", "content": "Hi"},)
    return orjson.loads(openai.request_body("m", PromptSpec(messages, **settings)))


def test_a_request_asks_for_a_stream_with_usage_and_sends_no_setting_that_was_not_made():
    assert body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_settings_that_were_made_are_sent_zero_included():
    sent = body(max_tokens=5, temperature=0.0, top_p=0.0, seed=0, ignore_eos=True)
    assert {name: sent[name] for name in ("max_tokens", "temperature", "top_p", "seed", "ignore_eos")} == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.0,
        "seed": 0,
        "ignore_eos": True,
    }


def test_extra_fields_pass_but_cannot_turn_streaming_or_usage_off_or_change_the_model():
    options = {"include_usage": False, "continuous_usage_stats": True}
    sent = body(extra={"stop": ["x"], "model": "other", "stream": False, "messages": [], "stream_options": options})
    assert sent["stop"] == ["x"]
    assert sent["model"] == "m"
    assert sent["stream"] is True
    assert sent["messages"]
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


# What comes


def test_a_role_only_chunk_has_no_text_and_is_not_the_end():
    for delta in ({"role": "assistant"}, {"role": "assistant", "content": ""}, {"role": "assistant", "content": None}):
        found = parse(chunk(delta))
        assert (found.content, found.reasoning, found.tool, found.finish_reason) == ("", "", "", None)
        assert found.has_choices
        assert not found.done


def test_a_chunk_without_choices_still_brings_its_usage():
    found = parse(chunk(None, usage=usage(5)))
    assert found.usage == Usage(7, 5)
    assert not found.has_choices


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_under_both_of_its_names(field: str):
    found = parse(chunk({field: "Hm", "content": None}))
    assert (found.reasoning, found.content) == ("Hm", "")


def test_reasoning_that_comes_under_both_names_at_once_is_taken_once():
    assert parse(chunk({"reasoning": "Hm", "reasoning_content": "Hm"})).reasoning == "Hm"


@pytest.mark.parametrize(
    ("delta", "names"),
    [
        ({"reasoning": "Hm"}, ["reasoning"]),
        ({"reasoning_content": "Hm", "reasoning": None}, ["reasoning_content"]),
        ({"reasoning_content": "Hm", "reasoning": "Hm"}, ["reasoning_content", "reasoning"]),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, ["content"]),
        ({"content": "Yes", "reasoning": ""}, []),
    ],
)
def test_the_name_under_which_reasoning_came_is_found_afterwards(delta: Any, names: list[str]):
    assert openai.reasoning_fields(parse(chunk(delta))) == names


def test_a_tool_calls_name_and_arguments_are_text_of_their_own_kind():
    calls = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 1, "function": {"arguments": '{"a'}},
        {"index": 2, "function": None},
        "no call",
    ]
    found = parse(chunk({"tool_calls": calls}))
    assert (found.tool, found.content) == ('weather{"a', "")


def test_only_choice_0_is_the_answer():
    other = parse(chunk({"content": "other"}, index=1, finish="stop"))
    assert (other.content, other.finish_reason, other.has_choices) == ("", None, True)
    unnumbered = {"choices": [{"delta": {"content": "mine"}}]}
    assert parse(unnumbered).content == "mine"


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_a_finish_reason_is_kept_as_the_server_says_it(reason: str):
    assert parse(chunk({}, finish=reason)).finish_reason == reason


@pytest.mark.parametrize("marker", [b"[DONE]", b" [DONE]", b"[DONE] "])
def test_the_end_marker_is_no_json(marker: bytes):
    assert parse(marker).done


def test_usage_details_are_read_and_what_is_no_count_is_unknown():
    full = usage(5) | {
        "completion_tokens_details": {"reasoning_tokens": 3},
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    assert parse(chunk(None, usage=full)).usage == Usage(7, 5, 3, 2)
    odd = {"prompt_tokens": "7", "completion_tokens": -1, "prompt_tokens_details": []}
    assert parse(chunk(None, usage=odd)).usage == Usage(None, None, None, None)
    assert parse(chunk(None, usage=usage(0))).usage == Usage(7, 0)
    assert parse(chunk(None, usage={"completion_tokens": True})).usage == Usage(None, None)
    for nothing in (None, [], "5", {}):
        assert parse(chunk(None, usage=nothing)).usage is None


@pytest.mark.parametrize(
    ("field", "vendor"), [("time_info", "Cerebras"), ("timings", "llama.cpp"), ("metrics", "vLLM")]
)
def test_a_servers_own_times_are_kept_apart_under_its_name(field: str, vendor: str):
    assert parse(chunk({}, **{field: {"queue_time": 0.1}})).server_times == ((vendor, {"queue_time": 0.1}),)
    assert parse(chunk({}, **{field: None})).server_times == ()
    assert parse(chunk({}, **{field: 3})).server_times == ()


def test_groqs_times_and_counts_stand_one_level_deeper():
    block = {"queue_time": 0.06, "prompt_tokens": 18, "prompt_time": 0.0002, "completion_tokens": 439}
    found = parse(chunk({}, finish="stop", x_groq={"id": "req_1", "usage": block}))
    assert found.server_times == (("Groq", block),)
    assert found.usage == Usage(18, 439)
    first = parse(chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_1"}))
    assert first.server_times == ()
    assert first.usage is None


def test_text_keeps_every_letter():
    text = "Grüße 世界 👩\u200d🚀 \u2028\u2029\u0085 \x00 </script>"
    assert parse(chunk({"content": text})).content == text


def test_broken_utf8_and_half_pairs_become_one_replacement_each():
    assert parse(b'{"choices":[{"delta":{"content":"a\xff\xc3(b"}}]}').content == "a\ufffd\ufffd(b"
    assert parse(b'{"choices":[{"delta":{"content":"a\\ud83db"}}]}').content == "a\ufffdb"
    assert parse(b'{"choices":[{"delta":{"content":"\\ud83d\\ude80 \\ude80"}}]}').content == "🚀 \ufffd"


WRONG = [b"", b"{", b"42", b"null", b'"text"', b"[]", b'{"choices": [{"delta"', b"[" * 100_000, b'{"a":' * 50_000]


@pytest.mark.parametrize("data", WRONG, ids=lambda data: data[:12].decode())
def test_what_is_no_json_object_is_a_value_error_for_the_caller_to_forgive(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        parse(data)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"choices": None},
        {"choices": "x"},
        {"choices": [7]},
        {"choices": [{}]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"content": 7, "reasoning": ["x"], "tool_calls": "x"}, "finish_reason": 3}]},
        {"choices": [{"delta": {"tool_calls": [{"function": "x"}, {"function": {"name": 1, "arguments": {}}}]}}]},
    ],
)
def test_an_object_of_another_shape_has_no_text_and_does_no_harm(shape: dict[str, Any]):
    found = parse(shape)
    assert (found.content, found.reasoning, found.tool, found.finish_reason) == ("", "", "", None)


FIELDS = """
choices delta content reasoning tool_calls function name arguments index finish_reason id object error message
usage completion_tokens prompt_tokens_details cached_tokens time_info x_groq
"""
KEYS = st.sampled_from(FIELDS.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_no_object_whatever_its_shape_breaks_the_parser(payload: dict[str, Any]):
    with contextlib.suppress(StreamError):
        found = parse(payload)
        assert isinstance(found.content, str)
        assert isinstance(found.reasoning, str)


@given(st.binary(max_size=80))
def test_no_bytes_break_the_parser(data: bytes):
    with contextlib.suppress(ValueError, StreamError):
        assert isinstance(parse(data), Chunk)


# Errors in the middle of a stream

SAID = [
    ({"error": {"message": "Out  of\nmemory", "type": "server_error"}}, "Out of memory"),
    ({"error": "Out of memory"}, "Out of memory"),
    ({"error": {"detail": "Out of memory"}}, "Out of memory"),
    ({"error": {"code": 502}}, ""),
    ({"error": True}, ""),
    ({"object": "error", "message": "Out of memory", "code": 500}, "Out of memory"),
    ({"error": {"message": "Out of memory"}, "choices": [{"delta": {"content": ""}}]}, "Out of memory"),
]


@pytest.mark.parametrize(("payload", "said"), SAID)
def test_an_error_object_of_any_shape_ends_the_stream_in_the_servers_words(payload: Any, said: str):
    with pytest.raises(StreamError) as caught:
        parse(payload)
    assert caught.value.kind == "upstream_error"
    assert caught.value.outcome is Outcome.ERROR
    assert caught.value.message.endswith(f"answer: “{said}”." if said else "answer.")


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"out of memory", "out of memory"), (b'{"message": "no"}', "no"), (b"\xff", "\ufffd"), (b"", ""), (b"7", "")],
)
def test_an_error_event_is_an_error_whatever_its_data(data: bytes, said: str):
    with pytest.raises(StreamError) as caught:
        parse(data, name="error")
    assert caught.value.message.endswith(f"answer: “{said}”." if said else "answer.")


@pytest.mark.parametrize("nothing", [None, "", {}, False])
def test_an_empty_error_field_is_no_error(nothing: object):
    assert parse(chunk({"content": "a"}, error=nothing)).content == "a"


def test_error_texts_are_cut_and_on_one_line():
    text = openai.error_text({"error": {"message": "a\n" * 1000}})
    assert len(text) <= 300
    assert "\n" not in text


def test_validation_errors_say_what_is_wrong_with_each_field():
    detail = [{"loc": ["body", "temperature"], "msg": "should be a number"}, {"msg": "too long"}, 7, {"msg": None}]
    assert openai.error_text({"detail": detail[:2]}) == "should be a number; too long"
    assert openai.error_text({"detail": detail}).startswith("should be a number; too long")
    assert openai.error_text({"detail": "Unexpected keys"}) == "Unexpected keys"


# A whole answer from a stream


def test_the_chunks_of_a_stream_make_the_answer_that_would_have_come_without_streaming():
    chunks = [
        parse(chunk({"role": "assistant", "content": ""})),
        parse(chunk({"reasoning": "Hm"})),
        parse(chunk({"content": "Hel"})),
        parse(chunk({"content": "lo"})),
        parse(chunk({}, finish="stop", time_info={"queue_time": 1})),
        parse(chunk(None, usage=usage(3))),
        parse(b"[DONE]"),
    ]
    answer = openai.assemble(chunks)
    message = {"role": "assistant", "content": "Hello", "reasoning": "Hm"}
    assert answer["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert answer["object"] == "chat.completion"
    assert answer["usage"] == usage(3)
    assert answer["time_info"] == {"queue_time": 1}
    assert answer["id"] == "chatcmpl-1"


def test_pieces_of_tool_calls_are_joined_by_their_index():
    def piece(index: int, **rest: Any) -> Chunk:
        return parse(chunk({"tool_calls": [{"index": index, **rest}]}))

    chunks = [
        piece(0, id="call_1", type="function", function={"name": "weather", "arguments": ""}),
        piece(1, id="call_2", function={"name": "time", "arguments": "{}"}),
        piece(0, function={"arguments": '{"city": '}),
        piece(0, function={"arguments": '"Oslo"}'}),
        piece(0, function=None),
    ]
    (choice,) = openai.assemble(chunks)["choices"]
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "weather", "arguments": '{"city": "Oslo"}'},
        {"name": "time", "arguments": "{}"},
    ]
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["call_1", "call_2"]


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=4))
def test_no_chunks_whatever_their_shape_break_the_assembly(payloads: list[dict[str, Any]]):
    chunks = []
    for payload in payloads:
        try:
            chunks.append(parse(payload))
        except StreamError:
            continue
    assert openai.assemble(chunks)["object"] == "chat.completion"


def test_half_a_pair_in_a_chunk_does_not_break_the_assembly():
    chunks = [parse(b'{"choices":[{"delta":{"content":"a\\ud83db"}}]}'), parse(chunk({}, finish="stop"))]
    (choice,) = openai.assemble(chunks)["choices"]
    assert choice["message"]["content"] == "a\ufffdb"


def test_content_in_typed_parts_is_text_and_thinking() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. "}]}
    delta = {"content": [thinking, {"type": "text", "text": "Yes"}, {"type": "reference", "reference_ids": [1]}]}
    found = openai.parse(SSEEvent("", orjson.dumps({"choices": [{"index": 0, "delta": delta}]})))
    assert (found.reasoning, found.content) == ("Hm. ", "Yes")


def test_a_refusal_is_the_answer_that_was_given() -> None:
    found = openai.parse(SSEEvent("", b'{"choices": [{"index": 0, "delta": {"content": null, "refusal": "No."}}]}'))
    assert found.content == "No."
