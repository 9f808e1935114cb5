"""Read a chat request strictly. Pure.

What is wrong is named in OpenAI's own terms (`param`, `code`), since clients show exactly that.
Unknown fields are ignored, as real servers do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from webapp.simulator.faults import FAULTS, NO_FAULT, Fault
from webapp.simulator.profile import Profile
from webapp.simulator.text import estimate_tokens

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_STOPS = 16
MAX_STOP_CHARS = 256
_SEED_RANGE = (-(2**63), 2**63 - 1)


class BadRequest(Exception):
    """A request that is refused; `param` is the field at fault, `code` OpenAI's word for it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request."""

    model: str  # as asked, with the fault's suffix
    profile: Profile
    fault: Fault
    question: str  # the last user message
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    include_usage: bool
    ignore_eos: bool


def parse_chat(body: bytes, profiles: Mapping[str, Profile], fault_header: str = "") -> ChatRequest:
    """Check the body of a chat request. Raises BadRequest."""
    table = _decode(body)
    model, profile, fault = _model(table, profiles, fault_header)
    texts = _messages(table)
    prompt_tokens = estimate_tokens(sum(len(text) for _, text in texts))
    stream = _flag(table, "stream")
    include_usage = _include_usage(table, stream)
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
    ):
        _number(table, name, low, high)
    _integer(table, "n", 1, 1)
    return ChatRequest(
        model=model,
        profile=profile,
        fault=fault,
        question=next((text for role, text in reversed(texts) if role == "user"), texts[-1][1]),
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(table, profile, prompt_tokens),
        stop=_stop(table),
        seed=_integer(table, "seed", *_SEED_RANGE),
        stream=stream,
        include_usage=include_usage,
        ignore_eos=_flag(table, "ignore_eos"),
    )


def _decode(body: bytes) -> dict[str, Any]:
    try:
        table = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise BadRequest(f"We could not parse the JSON body of your request: {problem}") from None
    if not isinstance(table, dict):
        raise BadRequest("The body must be a JSON object.")
    return table


def _model(table: dict[str, Any], profiles: Mapping[str, Profile], fault_header: str) -> tuple[str, Profile, Fault]:
    model = table.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("You must provide a model parameter, a text.", "model")
    slug, _, suffix = model.partition("+")
    if slug not in profiles:
        raise BadRequest(
            f"The model '{model[:80]}' does not exist. GET /v1/models lists those that do.",
            "model",
            "model_not_found",
            404,
        )
    name = suffix or fault_header
    if name and name not in FAULTS:
        where = "model" if suffix else "X-Fault"
        raise BadRequest(f"There is no fault '{name[:40]}'; there are {', '.join(FAULTS)}.", where)
    return model, profiles[slug], FAULTS[name] if name else NO_FAULT


def _messages(table: dict[str, Any]) -> list[tuple[str, str]]:
    messages = table.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list with at least one message.", "messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, where: str) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise BadRequest(f"'{where}' must be an object.", where)
    role = message.get("role")
    if role not in ROLES:
        raise BadRequest(f"'{where}.role' must be one of {', '.join(ROLES)}.", f"{where}.role")
    return role, _content(message.get("content"), f"{where}.content", optional=role == "assistant")


def _content(content: Any, where: str, optional: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and optional:  # an assistant's message may hold tool calls only
        return ""
    if not isinstance(content, list):
        raise BadRequest(f"'{where}' must be a text or a list of parts.", where)
    texts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("text", ""), str):
            raise BadRequest(f"'{where}[{index}]' must be an object with a text.", f"{where}[{index}]")
        texts.append(part.get("text", ""))
    return "\n".join(texts)


def _max_tokens(table: dict[str, Any], profile: Profile, prompt_tokens: int) -> int:
    """Return how many tokens the answer may have: what was asked, else what the context leaves."""
    left = profile.context_tokens - prompt_tokens
    name = "max_tokens" if table.get("max_completion_tokens") is None else "max_completion_tokens"
    asked = _integer(table, name, 1, profile.context_tokens)
    if left < (asked or 1):
        raise BadRequest(
            f"This model's context is {profile.context_tokens} tokens, but you asked for "
            f"{prompt_tokens + (asked or 1)}: {prompt_tokens} in the messages, {asked or 1} in the answer.",
            "messages" if left < 1 else name,
            "context_length_exceeded",
        )
    return asked or left


def _include_usage(table: dict[str, Any], stream: bool) -> bool:
    options = table.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object.", "stream_options")
    if not stream:
        raise BadRequest("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    return _flag(options, "include_usage", "stream_options.include_usage")


def _stop(table: dict[str, Any]) -> tuple[str, ...]:
    stop = table.get("stop")
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise BadRequest(f"'stop' must be a text or a list of at most {MAX_STOPS} texts.", "stop")
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARS for text in stops):
        raise BadRequest(f"Each 'stop' must be a text of 1 to {MAX_STOP_CHARS} characters.", "stop")
    return tuple(stops)


def _flag(table: dict[str, Any], name: str, param: str = "") -> bool:
    value = table.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"'{param or name}' must be true or false.", param or name)
    return bool(value)


def _integer(table: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        wanted = f"{low}" if low == high else f"a whole number from {low} to {high}"
        raise BadRequest(f"'{name}' must be {wanted}.", name)
    return value


def _number(table: dict[str, Any], name: str, low: float, high: float) -> None:
    value = table.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRequest(f"'{name}' must be a number from {low:g} to {high:g}.", name)
