"""The machine wire: the OpenAI Chat Completions API in front of all backends, on the page's own measuring path.

Cookies mean nothing here, so there is no CSRF to forge; a web page of another origin is refused by its Origin header,
and cannot send JSON without asking first.
"""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from webapp import queries
from webapp.core.errors import StreamError
from webapp.core.spec import PromptSpec
from webapp.models import Backend
from webapp.origins import is_own_origin
from webapp.services.database import in_thread
from webapp.services.relays import Relay, error_body

# A request may say what to ask, never whom: these names are how other gateways lost their keys
# (research: reliability T1).
FORBIDDEN = frozenset({
    "api_base", "api_key", "api_type", "api_version", "aws_access_key_id", "aws_secret_access_key",
    "aws_session_token", "azure_ad_token", "azure_endpoint", "base_url", "custom_llm_provider", "default_headers",
    "deployment_id", "extra_body", "extra_headers", "extra_query", "headers", "organization", "proxies", "proxy",
    "vertex_credentials",
})  # fmt: skip
OURS = frozenset({"model", "messages", "stream"})
STATUS_OF_KIND = {"rate_limited": 429, "bad_request": 400, "interrupted": 503}
MAX_MESSAGES = 1000


class BadRequest(Exception):
    """A request that is refused before anything is sent; `param` names the field at fault."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


@require_GET
async def models(request: HttpRequest) -> HttpResponse:
    rows = await in_thread(queries.all_backends)
    data = [
        {
            "id": row.slug,
            "object": "model",
            "created": int(row.created_at.timestamp()),
            "owned_by": "splitsecond",
            "badge": row.badge,
            "label": row.label,
        }
        for row in rows
    ]
    return _json({"object": "list", "data": data})


@csrf_exempt
@require_POST
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    try:
        body = _body(request)
        backend = await _backend(body["model"])
    except BadRequest as refused:
        return _refusal(refused)
    streaming = bool(body.get("stream"))
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    relay = Relay(queries.spec_of(backend), backend.source, _prompt(body), include_usage=wants_usage)
    if (error := await relay.open()) is not None:
        return _failure(error)
    if streaming:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Splitsecond-Turn": relay.turn.id}
        return StreamingHttpResponse(relay.stream(), content_type="text/event-stream", headers=headers)
    try:
        answer = await relay.complete()
    except StreamError as failed:
        return _failure(failed)
    answer.setdefault("created", int(timezone.now().timestamp()))
    return _json(answer, headers={"X-Splitsecond-Turn": relay.turn.id})


def _body(request: HttpRequest) -> dict[str, Any]:
    """Return the request's JSON object, checked as far as it is ours to check; the rest is the backend's."""
    if not is_own_origin(request.headers.get("Origin", ""), request.get_host(), request.scheme or "http"):
        raise BadRequest("Requests from another web page are refused.", status=403)
    if request.content_type != "application/json":
        raise BadRequest("The body has to be JSON, with Content-Type: application/json.", status=415)
    try:
        body = orjson.loads(request.body)
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


async def _backend(slug: str) -> Backend:
    found = None if "\0" in slug else await in_thread(queries.backend, slug)  # PostgreSQL cannot even look for NUL
    if found is None:
        text = f"There is no backend {slug[:80]!r}; GET /v1/models lists them."
        raise BadRequest(text, "model", status=404, code="model_not_found")
    return found


def _prompt(body: dict[str, Any]) -> PromptSpec:
    """Return the request as it goes on: every field that is not ours is passed through as it came."""
    return PromptSpec(
        messages=tuple(body["messages"]), extra={name: value for name, value in body.items() if name not in OURS}
    )


def _failure(error: StreamError) -> HttpResponse:
    status = STATUS_OF_KIND.get(error.kind, 504 if error.outcome == "timeout" else 502)
    headers = {"Retry-After": str(round(error.retry_after_s))} if error.retry_after_s is not None else {}
    return _json(error_body(error), status, headers)


def _refusal(error: BadRequest) -> HttpResponse:
    detail = {"message": error.message, "type": "invalid_request_error", "param": error.param, "code": error.code}
    return _json({"error": detail}, error.status)


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(orjson.dumps(body), "application/json", status, headers=headers)
