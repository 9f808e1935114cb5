"""Read a request strictly. Pure.

What is wrong is named in OpenAI's own terms (`param`, `code`), since clients show exactly that.
Unknown fields are ignored, as real servers do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from webapp.simulator.answers import SEARCHED_CHARS
from webapp.simulator.faults import FAULTS, NO_FAULT, Fault, find_fault
from webapp.simulator.profile import Profile
from webapp.simulator.request_fields import CHAT, MAX_STOP_CHARS, MAX_STOPS, ROLES, TEXT, fields_of
from webapp.simulator.text import estimate_tokens

_KINDS: Mapping[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "boolean": (bool,)}


class BadRequest(Exception):
    """A request that is refused; `param` is the field at fault, `code` OpenAI's word for it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request."""

    shape: str  # CHAT or TEXT
    model: str  # as asked, with the fault's suffix
    profile: Profile
    fault: Fault
    question: str  # the last user message, as much of it as an answer is looked up by
    prompt_tokens: int
    max_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    include_usage: bool
    ignore_eos: bool


def parse_chat(body: bytes, profiles: Mapping[str, Profile], fault_header: str = "") -> Asked:
    """Check the body of a chat request. Raises BadRequest."""
    table = _decode(body)
    model, profile, fault = _model(table, profiles, fault_header)
    texts = _messages(table)
    question = next((text for role, text in reversed(texts) if role == "user"), texts[-1][1])
    prompt_tokens = estimate_tokens(sum(len(text) for _, text in texts))
    return _asked(CHAT, table, (model, profile, fault), question, prompt_tokens)


def parse_text(body: bytes, profiles: Mapping[str, Profile], fault_header: str = "") -> Asked:
    """Check the body of a text completion request. Raises BadRequest."""
    table = _decode(body)
    names = _model(table, profiles, fault_header)
    question, prompt_tokens = _prompt(table)
    return _asked(TEXT, table, names, question, prompt_tokens)


def _asked(
    shape: str, table: dict[str, Any], names: tuple[str, Profile, Fault], question: str, prompt_tokens: int
) -> Asked:
    model, profile, fault = names
    _check_plain(shape, table)
    max_tokens = _max_tokens(shape, table, profile, prompt_tokens)
    forced = min(fault.forced_tokens, profile.context_tokens - prompt_tokens)
    return Asked(
        shape=shape,
        model=model,
        profile=profile,
        fault=fault,
        question=question[: SEARCHED_CHARS + 1],
        prompt_tokens=prompt_tokens,
        max_tokens=forced or max_tokens,
        stop=_stop(table),
        seed=table.get("seed"),
        stream=bool(table.get("stream")),
        include_usage=_include_usage(table),
        ignore_eos=bool(forced or table.get("ignore_eos")),
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
    fault = find_fault(name) if name else NO_FAULT
    if fault is None:
        where = "model" if suffix else "X-Fault"
        raise BadRequest(f"There is no fault '{name[:40]}'; there are {', '.join(FAULTS)}.", where)
    return model, profiles[slug], fault


def _check_plain(shape: str, table: dict[str, Any]) -> None:
    """Check the fields whose whole rule is in the table."""
    for field in fields_of(shape):
        value, schema = table.get(field.name), field.schema
        if value is None:
            continue
        if "const" in schema and value is not schema["const"]:
            raise BadRequest(f"'{field.name}' must be {str(schema['const']).lower()}.", field.name)
        kind: str = schema.get("type", "")
        if kind in _KINDS and not _fits(value, kind, schema):
            raise BadRequest(f"'{field.name}' must be {_wanted(kind, schema)}.", field.name)


def _fits(value: Any, kind: str, schema: Mapping[str, Any]) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
        return False
    return bool(schema["minimum"] <= value <= schema["maximum"])


def _wanted(kind: str, schema: Mapping[str, Any]) -> str:
    if kind == "boolean":
        return "true or false"
    low, high = schema["minimum"], schema["maximum"]
    if low == high:
        return f"{low}"
    return f"a whole number from {low} to {high}" if kind == "integer" else f"a number from {low:g} to {high:g}"


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
    return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    """Return the text of a part; one that shows a picture or plays a sound has none."""
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise BadRequest(f"'{where}' must be an object with a type.", where)
    text = part.get("text", None if part["type"] == "text" else "")
    if not isinstance(text, str):
        raise BadRequest(f"'{where}.text' must be a text.", f"{where}.text")
    return text


def _prompt(table: dict[str, Any]) -> tuple[str, int]:
    """Return the prompt's text, empty where it came as token numbers, and its length in tokens."""
    prompt = table.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(part, str | list) for part in prompt):
        if len(prompt) > 1:
            raise BadRequest("'prompt' must hold one prompt: send the others in requests of their own.", "prompt")
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt, estimate_tokens(len(prompt))
    if isinstance(prompt, list) and prompt and all(type(token) is int and token >= 0 for token in prompt):
        return "", len(prompt)
    raise BadRequest("'prompt' must be a text or a list of token numbers.", "prompt")


def _max_tokens(shape: str, table: dict[str, Any], profile: Profile, prompt_tokens: int) -> int:
    """Return how many tokens the answer may have: what was asked, else what the context leaves."""
    left = profile.context_tokens - prompt_tokens
    newer = shape == CHAT and table.get("max_completion_tokens") is not None
    name = "max_completion_tokens" if newer else "max_tokens"
    asked: int | None = table.get(name)
    if left < (asked or 1):
        prompt = "messages" if shape == CHAT else "prompt"
        raise BadRequest(
            f"This model's context is {profile.context_tokens} tokens, but you asked for "
            f"{prompt_tokens + (asked or 1)}: {prompt_tokens} in the {prompt}, {asked or 1} in the answer.",
            prompt if left < 1 else name,
            "context_length_exceeded",
        )
    return asked or left


def _include_usage(table: dict[str, Any]) -> bool:
    options = table.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object.", "stream_options")
    if not table.get("stream"):
        raise BadRequest("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    wanted = options.get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise BadRequest("'stream_options.include_usage' must be true or false.", "stream_options.include_usage")
    return bool(wanted)


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
