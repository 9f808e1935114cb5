"""What the machine wire takes and gives: requests checked, answers and refusals in OpenAI's shape. No I/O.

A request is checked as far as it is ours to check; the rest is the backend's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from webapp.core.errors import StreamError
from webapp.core.spec import PromptSpec
from webapp.models import Backend
from webapp.services.relays import error_body

# A request may say what to ask, never whom: by these names other gateways were made to send their keys elsewhere.
FORBIDDEN = frozenset({
    "api_base", "api_key", "api_type", "api_version", "aws_access_key_id", "aws_secret_access_key",
    "aws_session_token", "azure_ad_token", "azure_endpoint", "base_url", "custom_llm_provider", "default_headers",
    "deployment_id", "extra_body", "extra_headers", "extra_query", "headers", "organization", "proxies", "proxy",
    "vertex_credentials",
})  # fmt: skip
OURS = frozenset({"model", "messages", "stream"})
STATUS_OF_KIND = {"rate_limited": 429, "bad_request": 400, "interrupted": 503}
MAX_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, JSON body, and headers beside the content type."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class BadRequest(Exception):
    """A request that is refused before anything is sent; `param` names the field at fault."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code

    def answer(self) -> Answer:
        detail = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return Answer(self.status, {"error": detail})


def models(backends: Sequence[Backend]) -> Answer:
    """Return the list of models; a model is a backend, its id the slug."""
    data = [
        {
            "id": backend.slug,
            "object": "model",
            "created": int(backend.created_at.timestamp()),
            "owned_by": "splitsecond",
            "badge": backend.badge,
            "label": backend.label,
        }
        for backend in backends
    ]
    return Answer(200, {"object": "list", "data": data})


def chat_request(content_type: str, data: bytes) -> dict[str, Any]:
    """Return a chat request's JSON object; raise BadRequest where it cannot be sent on."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("The body has to be JSON, with Content-Type: application/json.", status=415)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body has to be a JSON object.")
    try:
        orjson.dumps(body)  # nested deeper than can be written again, it could not be passed on
    except orjson.JSONEncodeError:
        raise BadRequest("The body is nested too deeply.") from None
    if forbidden := sorted(FORBIDDEN & set(body)):
        raise BadRequest(f"{forbidden[0]} cannot be set in a request; edit the backend instead.", forbidden[0])
    _check_messages(body.get("messages"))
    if body.get("n") not in (None, 1):
        raise BadRequest("Only n=1 is measured.", "n")
    if not isinstance(body.get("stream") or False, bool):
        raise BadRequest("stream has to be true or false.", "stream")
    if not isinstance(body.get("stream_options") or {}, dict):
        raise BadRequest("stream_options has to be an object.", "stream_options")
    if not isinstance(body.get("model"), str):
        raise BadRequest("model has to name a backend; GET /v1/models lists them.", "model")
    return body


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages has to be a list with at least one message.", "messages")
    if len(messages) > MAX_MESSAGES:
        raise BadRequest(f"messages has more than {MAX_MESSAGES} entries.", "messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest("Every message is an object with a role and a content.", f"messages[{place}]")


def unknown_model(slug: str) -> BadRequest:
    text = f"There is no backend {slug[:80]!r}; GET /v1/models lists them."
    return BadRequest(text, "model", status=404, code="model_not_found")


def prompt_of(body: dict[str, Any]) -> PromptSpec:
    """Return the request as it goes on: every field that is not ours is passed through as it came."""
    return PromptSpec(
        messages=tuple(body["messages"]), extra={name: value for name, value in body.items() if name not in OURS}
    )


def failure(error: StreamError) -> Answer:
    """Return a backend's failure before the first byte; whose fault it was shows in the status.

    `x-should-retry` is OpenAI's: its clients ask a 5xx twice more, unless they are told that it cannot help.
    """
    status = STATUS_OF_KIND.get(error.kind, 504 if error.outcome == "timeout" else 502)
    headers = {"Retry-After": str(round(error.retry_after_s))} if error.retry_after_s is not None else {}
    if error.permanent:
        headers["x-should-retry"] = "false"
    return Answer(status, error_body(error), headers)
