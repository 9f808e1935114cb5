"""The OpenAPI description of the server, made from the table of fields and a table of paths. Pure."""

from collections.abc import Sequence
from typing import Any

from webapp.simulator.faults import FAULTS
from webapp.simulator.request_fields import CHAT, TEXT, fields_of

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_SECONDS = {"type": "number", "minimum": 0}


def _object(required: Sequence[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_USAGE = _object(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    completion_tokens_details=_object(reasoning_tokens=_COUNT),
)
_TIME_INFO = _object(
    queue_time=_SECONDS,
    prompt_time=_SECONDS,
    completion_time=_SECONDS,
    total_time=_SECONDS,
    api_time=_SECONDS,
    parts={"type": "object", "additionalProperties": _SECONDS},
)
_REASON = {"enum": ["stop", "length"]}
_CHAT_CHOICE = _object(index=_COUNT, message=_object(role={"const": "assistant"}, content=_TEXT), finish_reason=_REASON)
_TEXT_CHOICE = _object(index=_COUNT, text=_TEXT, finish_reason=_REASON)


def _answer(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    choices = {"type": "array", "items": choice, "minItems": 1, "maxItems": 1}
    return _object(
        id=_TEXT,
        object={"const": kind},
        created=_COUNT,
        model=_TEXT,
        choices=choices,
        usage=_ref("Usage"),
        time_info=_ref("TimeInfo"),
    )


_MODEL = _object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT, max_model_len=_COUNT)
_ERROR = _object(
    error=_object(
        message=_TEXT,
        type={"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    )
)

_RESPONSES: dict[int, str] = {
    400: "A field is wrong; `param` names it.",
    408: "The body did not come in time.",
    404: "There is no such model.",
    413: "The body is too long.",
    429: "Too many requests wait for this model.",
    500: "The engine failed.",
    503: "Too many requests are open.",
}


def _json(name: str, summary: str) -> dict[str, Any]:
    return {"description": summary, "content": {"application/json": {"schema": _ref(name)}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _json("Error", _RESPONSES[status]) for status in statuses}


_OPTIONS_NEED_A_STREAM = {
    "if": {"properties": {"stream_options": {"type": "object"}}, "required": ["stream_options"]},
    "then": {"properties": {"stream": {"const": True}}, "required": ["stream"]},
}


def _request(shape: str, models: Sequence[str]) -> dict[str, Any]:
    """Return the schema of a request's body. Optional fields may be null, which is the same as leaving them out."""
    properties = {}
    for field in fields_of(shape):
        schema: dict[str, Any] = dict(field.schema)
        if field.name == "model" and models:
            schema = {"type": "string", "enum": list(models)}
        elif not field.required:
            schema = {"anyOf": [schema, {"type": "null"}]}
        properties[field.name] = {**schema, "description": field.summary}
    required = [field.name for field in fields_of(shape) if field.required]
    return _object(required, **properties) | _OPTIONS_NEED_A_STREAM


def _post(operation: str, summary: str, name: str) -> dict[str, Any]:
    answer = _json(name, "The answer, or with `stream` its events.")
    answer["content"]["text/event-stream"] = {"schema": _object(data=_TEXT)}  # of each event
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref(f"{name}Request")}},
            },
            "responses": {"200": answer, **_errors(400, 404, 408, 413, 429, 500, 503)},
        }
    }


def _get(operation: str, summary: str, content: dict[str, Any], **rest: Any) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": content}, **rest.pop("responses", {})}
    return {"get": {"operationId": operation, "summary": summary, "responses": responses, **rest}}


def _as_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _paths() -> dict[str, Any]:
    slug = {"name": "slug", "in": "path", "required": True, "schema": _TEXT}
    models = _object(object={"const": "list"}, data={"type": "array", "items": _ref("Model")})
    health = _object(status={"const": "ok"}, profiles={"type": "array", "items": _TEXT}, streams=_COUNT)
    live = _object(at_ns=_COUNT, models={"type": "object"})
    one = _get("model", "One model.", _as_json(_ref("Model")), parameters=[slug], responses=_errors(404))
    return {
        "/v1/chat/completions": _post("chat", "Answer a conversation.", "Chat"),
        "/v1/completions": _post("complete", "Go on from a text.", "Completion"),
        "/v1/models": _get("models", "The models and their figures.", _as_json(models)),
        "/v1/models/{slug}": one,
        "/healthz": _get("healthz", "Whether the server is up.", _as_json(health)),
        "/health": _get("health", "The same under vLLM's name.", _as_json(health)),
        "/metrics": _get("metrics", "Counts in vLLM's names.", {"text/plain": {"schema": _TEXT}}),
        "/metrics.json": _get("live", "What each model is doing now.", _as_json(live)),
        "/openapi.json": _get("openapi", "This description.", _as_json({"type": "object"})),
    }


def description(models: Sequence[str] = ()) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of a server of these models."""
    faults = "; ".join(f"`{fault.name}` {fault.summary}" for fault in FAULTS.values())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Splitsecond's simulator",
            "version": "1",
            "description": "Models whose speed follows published figures and whose words are prepared. A suffix of "
            "the model's name (`model+stall`) or the header X-Fault asks for a fault, where a server can act one "
            f"out: {faults}. `model@vendor` and `model@measured` are set to that figure of a model that has both.",
        },
        "paths": _paths(),
        "components": {
            "schemas": {
                "ChatRequest": _request(CHAT, models),
                "CompletionRequest": _request(TEXT, models),
                "Chat": _answer("chat.completion", _CHAT_CHOICE),
                "Completion": _answer("text_completion", _TEXT_CHOICE),
                "Usage": _USAGE,
                "TimeInfo": _TIME_INFO,
                "Model": _MODEL,
                "Error": _ERROR,
            }
        },
    }
