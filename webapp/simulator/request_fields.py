"""The fields of a request's body, in one table: the parser checks by it, the OpenAPI description publishes it.

Each `schema` is a JSON Schema. The plain ones (whole number, number, boolean) are checked from the table itself;
the rest, and what hangs on other fields, is code in `request`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MOST_TOKENS = 10_000_000

CHAT = "chat"
TEXT = "text"
BOTH = (CHAT, TEXT)


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `null` counts as absent wherever the field is not required."""

    name: str
    schema: Mapping[str, Any]
    summary: str
    shapes: tuple[str, ...] = BOTH
    required: bool = False


_PART = {
    "type": "object",
    "properties": {"type": {"type": "string", "examples": ["text"]}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT = [{"type": "string"}, {"type": "array", "items": _PART}]
_MESSAGE = {
    "type": "object",
    "oneOf": [
        {
            "properties": {
                "role": {"enum": [role for role in ROLES if role != "assistant"]},
                "content": {"anyOf": _CONTENT},
            },
            "required": ["role", "content"],
        },
        {
            "properties": {"role": {"const": "assistant"}, "content": {"anyOf": [*_CONTENT, {"type": "null"}]}},
            "required": ["role"],
        },
    ],
}
_TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1},
        _TOKEN_IDS,
        {"type": "array", "items": _TOKEN_IDS, "minItems": 1, "maxItems": 1},
    ]
}
_STOP_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
_STOP = {"anyOf": [_STOP_TEXT, {"type": "array", "items": _STOP_TEXT, "maxItems": MAX_STOPS}]}
_STREAM_OPTIONS = {"type": "object", "properties": {"include_usage": {"type": ["boolean", "null"]}}}


def _whole(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high}


_FLAG = {"type": "boolean"}

FIELDS: tuple[Field, ...] = (
    Field("model", {"type": "string", "minLength": 1}, "A model of /v1/models.", required=True),
    Field(
        "messages",
        {"type": "array", "items": _MESSAGE, "minItems": 1},
        "The conversation; the last message of the user picks the prepared answer.",
        (CHAT,),
        required=True,
    ),
    Field("prompt", _PROMPT, "The text to go on from, or its token numbers; one only.", (TEXT,), required=True),
    Field("max_tokens", _whole(1, MOST_TOKENS), "At most so many tokens; without it, what the context leaves."),
    Field("max_completion_tokens", _whole(1, MOST_TOKENS), "The newer name of max_tokens, which wins.", (CHAT,)),
    Field("temperature", _number(0, 2), "Checked, and of no effect: the words are prepared."),
    Field("top_p", _number(0, 1), "Checked, and of no effect."),
    Field("presence_penalty", _number(-2, 2), "Checked, and of no effect."),
    Field("frequency_penalty", _number(-2, 2), "Checked, and of no effect."),
    Field("n", _whole(1, 1), "One answer per request."),
    Field("best_of", _whole(1, 1), "One answer per request.", (TEXT,)),
    Field("echo", {"const": False}, "The prompt is not repeated.", (TEXT,)),
    Field(
        "seed",
        _whole(-(2**63), 2**63 - 1),
        "Decides the front end's time; the noise of steps is the model's own and goes on from request to request.",
    ),
    Field("stop", _STOP, "The answer ends before the first of these texts."),
    Field("stream", _FLAG, "Send server-sent events, a token each."),
    Field("stream_options", _STREAM_OPTIONS, "Only with stream; include_usage asks for a last event with counts."),
    Field("ignore_eos", _FLAG, "Go on until max_tokens, as vLLM does."),
)


def fields_of(shape: str) -> tuple[Field, ...]:
    """Return the fields of one shape of request, `CHAT` or `TEXT`."""
    return tuple(field for field in FIELDS if shape in field.shapes)
