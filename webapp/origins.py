"""Which web pages may talk to this server: its own, compared by scheme, host and port, and no other.

Channels' validator compares host names only, so a page on another port of the same host would pass. A request without
an Origin header does not come from a web page; scripts may connect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings
from django.http.request import split_domain_port, validate_host

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_own_origin(origin: str, host: str, scheme: str) -> bool:
    """Return whether `origin` (a header's value, "" where absent) is this server at `scheme`://`host`."""
    return not origin or origin == f"{scheme}://{host}" or origin in settings.CSRF_TRUSTED_ORIGINS


def is_allowed_host(host: str) -> bool:
    """Return whether `host` (a Host header's value) names this server, whatever its port."""
    name, _ = split_domain_port(host)  # "" for what is no host, such as "localhost:80@evil.example"
    return bool(name) and validate_host(name, settings.ALLOWED_HOSTS)


class OwnOriginOnly:
    """Wraps a WebSocket application; handshakes from other pages, or for a host that is not ours, are refused."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
        scheme = "https" if settings.HTTPS else "http"
        if is_allowed_host(host) and is_own_origin(origin, host, scheme):
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4003})
