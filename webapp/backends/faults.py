"""Every way in which a request fails before its stream begins, as one plain sentence: what, whose side, what to do."""

from __future__ import annotations

import asyncio
import errno
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import orjson

from webapp.core.errors import StreamError
from webapp.core.openai import error_text

SNIPPET_CHARS = 200
MAX_RETRY_AFTER_S = 24 * 3600


def of_exception(error: BaseException, host: str, *, resolving: bool = False) -> StreamError:
    """Return the StreamError for a transport failure while talking to `host`, or while `resolving` its name."""
    if isinstance(error, StreamError):
        return error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return StreamError("dns", f"The name {host} could not be found; check the backend's URL or the network.")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
        return StreamError("tls", f"Certificate problem with {host}: {_tls_reason(error)}.", permanent=True)
    if isinstance(error, aiohttp.ConnectionTimeoutError) and resolving:
        return StreamError("dns_timeout", f"Looking up the name {host} took too long; check the URL or the network.")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return StreamError("connect_timeout", f"{host} did not accept a connection in time; is it up and reachable?")
    if isinstance(error, ConnectionRefusedError) or _errno(error) == errno.ECONNREFUSED:
        return StreamError("refused", f"{host} is not accepting connections; start the backend or check its port.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return StreamError("unreachable", f"{host} cannot be reached from here; check the network.")
    if isinstance(error, aiohttp.InvalidURL):
        return StreamError("bad_request", "The backend's URL is not valid; edit the backend.", permanent=True)
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError | aiohttp.ClientOSError):
        return StreamError("reset", f"{host} broke the connection; what had arrived is kept.")
    if isinstance(error, aiohttp.ClientPayloadError):
        return StreamError("truncated", f"{host} ended its answer in the middle; what had arrived is kept.")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientError | asyncio.LimitOverrunError):
        return StreamError("protocol", f"{host} did not answer in valid HTTP; check that the URL is an API endpoint.")
    return StreamError("protocol", f"The request to {host} failed in an unexpected way ({type(error).__name__}).")


def of_status(
    status: int, headers: dict[str, str], body: bytes, url: str, now: datetime | None = None, *, keyed: bool = True
) -> StreamError:
    """Return the StreamError for an answer whose status is not 200; `headers` have lower-case names.

    `keyed` says whether the request bore a key.
    """
    said = _said(body)
    if status in (401, 403):
        text = f"The backend refused our key ({status}); check the key's reference."
        if not keyed:
            text = f"The backend wants a key ({status}) and none is set; add one by reference (env:NAME or file:PATH)."
        return StreamError("auth", text, permanent=True, status=status)
    if status == 404:
        detail = said or f" at {url}"
        return StreamError(
            "not_found", f"The backend does not know this model or path (404){detail}.", permanent=True, status=404
        )
    if status == 429:
        wait_s = retry_after_s(headers.get("retry-after", ""), now or datetime.now(UTC))
        when = f"try again in {wait_s:.0f} s" if wait_s is not None else "try again in a minute"
        return StreamError(
            "rate_limited", f"The backend's rate limit is reached (429); {when}.", retry_after_s=wait_s, status=status
        )
    if 300 <= status < 400:
        return StreamError(
            "redirected",
            f"The backend redirected us ({status}), which is refused; enter its final URL.",
            permanent=True,
            status=status,
        )
    if status in (400, 413, 415, 422):
        return StreamError(
            "bad_request", f"The backend did not accept the request ({status}){said}.", permanent=True, status=status
        )
    side = "The backend failed" if status >= 500 else "The backend answered unexpectedly"
    return StreamError("http_status", f"{side} ({status}){said}; try again, or look at its log.", status=status)


def not_a_stream(content_type: str, body: bytes) -> StreamError:
    """Return the StreamError for a 200 that is not an event stream."""
    kind = content_type.partition(";")[0].strip() or "no content type"
    return StreamError(
        "not_a_stream",
        f"The backend answered, but not with a stream ({kind}){_said(body)}; check that it supports streaming.",
        permanent=True,
    )


def retry_after_s(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), None where absent or absurd."""
    try:
        wait_s = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        wait_s = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return wait_s if 0 <= wait_s <= MAX_RETRY_AFTER_S else None


def _said(body: bytes) -> str:
    """Return what a body says in its own words, cut and on one line, "" where it is empty or a whole HTML page."""
    try:
        text = error_text(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = " ".join(body.decode("utf-8", "replace").split())
        if text.startswith("<"):
            return ", with an HTML page"
    text = "".join(char for char in text if char.isprintable())[:SNIPPET_CHARS]
    return f": “{text.rstrip('.')}”" if text else ""


def _tls_reason(error: BaseException) -> str:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    message = getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or "the handshake failed"
    return str(message).replace("_", " ").lower()


def _errno(error: BaseException) -> int | None:
    return getattr(getattr(error, "os_error", error), "errno", None)
