"""Who may change backends and send load: the operator."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

COOKIE = "operator"
COOKIE_S = 12 * 3600
PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
View = Callable[..., Any]


def is_operator(request: HttpRequest) -> bool:
    """Return whether this browser may change backends and send load, which costs whoever pays for them.

    With OPERATOR_TOKEN set: after it was entered once. Without: from this machine only, and not through a proxy,
    behind which everybody seems to be on this machine.
    """
    if settings.OPERATOR_TOKEN:
        return request.get_signed_cookie(COOKIE, default="", salt=settings.OPERATOR_TOKEN, max_age=COOKIE_S) == "yes"
    proxied = any(name in request.headers for name in PROXY_HEADERS)
    try:
        return not proxied and ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def operator_only(deed: str) -> Callable[[View], View]:
    """Let only the operator use a view, sync or async; others are told that `deed` is not theirs to do."""

    def guard(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not is_operator(request):
                raise PermissionDenied(f"Only the operator may {deed}; see the help page.")
            return view(request, *args, **kwargs)

        return markcoroutinefunction(guarded) if iscoroutinefunction(view) else guarded

    return guard


@require_POST
def unlock(request: HttpRequest) -> HttpResponse:
    """Let this browser change backends once it has shown the operator's token."""
    given = request.POST.get("token", "")
    if not settings.OPERATOR_TOKEN or not hmac.compare_digest(given.encode(), settings.OPERATOR_TOKEN.encode()):
        raise PermissionDenied("That is not the operator's token.")
    response = redirect("backends")
    # Salted with the token: a new token ends what the old one had opened.
    options: dict[str, Any] = {"httponly": True, "samesite": "Strict", "secure": settings.HTTPS}
    response.set_signed_cookie(COOKIE, "yes", salt=settings.OPERATOR_TOKEN, max_age=COOKIE_S, **options)
    return response
