"""Backends as an operator keeps them: list, add, edit, test, remove."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from webapp import queries
from webapp.forms import BackendForm
from webapp.models import Backend
from webapp.services import backends
from webapp.services.database import in_thread

COOKIE = "operator"
COOKIE_S = 12 * 3600
PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
View = Callable[..., Any]


def is_operator(request: HttpRequest) -> bool:
    """Return whether this browser may change backends.

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


def operator_only(view: View) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not is_operator(request):
            raise PermissionDenied("Only the operator may change backends; see the help page.")
        return view(request, *args, **kwargs)

    return markcoroutinefunction(guarded) if iscoroutinefunction(view) else guarded


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    context = {
        "nav": "backends",
        "backends": [_row(backend) for backend in queries.all_backends()],
        "can_edit": is_operator(request),
        "needs_token": bool(settings.OPERATOR_TOKEN),
        "add_url": reverse("backend-add"),
    }
    return render(request, "backends/list.html", context)


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


@require_http_methods(["GET", "POST"])
@operator_only
def add(request: HttpRequest) -> HttpResponse:
    return _edit(request, Backend(), "Add a backend", reverse("backend-add"))


@require_http_methods(["GET", "POST"])
@operator_only
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    return _edit(request, _backend(slug), f"Edit {slug}", reverse("backend-edit", args=[slug]))


@require_POST
@operator_only
async def test(request: HttpRequest, slug: str) -> HttpResponse:
    """Send the backend one real request and show what it found."""
    backend = await in_thread(_backend, slug)
    probe = await backends.probe(queries.spec_of(backend))
    checks = [{"label": check.label, "text": check.text, "state": check.state} for check in probe.checks]
    context = {"slug": slug, "ok": probe.ok, "summary": probe.summary, "checks": checks}
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "backends/_test.html", {"test": context, "slug": slug})
    found = await in_thread(queries.all_backends)
    rows = [_row(row) | ({"test": context} if row.slug == slug else {}) for row in found]
    page = {"nav": "backends", "backends": rows, "can_edit": True, "add_url": reverse("backend-add")}
    return render(request, "backends/list.html", page)


@require_POST
@operator_only
def remove(request: HttpRequest, slug: str) -> HttpResponse:
    if not backends.remove(slug):
        raise Http404("There is no such backend.")
    return HttpResponse() if request.htmx else redirect("backends")  # type: ignore[attr-defined]


def _backend(slug: str) -> Backend:
    found = queries.backend(slug)
    if found is None:
        raise Http404("There is no such backend.")
    return found


def _edit(request: HttpRequest, backend: Backend, title: str, action: str) -> HttpResponse:
    form = BackendForm(request.POST or None, instance=backend)
    if request.method == "POST" and form.is_valid():
        try:
            backends.save(form.save(commit=False))
        except ValidationError as error:
            form.add_error(None, error)
        else:
            return _saved(request)
    htmx = bool(request.htmx)  # type: ignore[attr-defined]
    context = {
        "nav": "backends",
        "form": form,
        "form_title": title,
        "form_action": action,
        "cancel_url": reverse("backends"),
    }
    return render(request, "backends/_form.html" if htmx else "backends/edit.html", context)


def _saved(request: HttpRequest) -> HttpResponse:
    url = reverse("backends")
    return HttpResponseClientRedirect(url) if request.htmx else HttpResponseRedirect(url)  # type: ignore[attr-defined]


def _row(backend: Backend) -> dict[str, Any]:
    return {
        "slug": backend.slug,
        "label": backend.label,
        "kind": backend.kind,
        "url": "a recording" if backend.kind == "recording" else backend.base_url or "the built-in simulator",
        "model": backend.model,
        "badge": backend.badge,
        "source": backend.source,
        "key": backend.key_ref,
        "edit_url": "" if backend.kind == "recording" else reverse("backend-edit", args=[backend.slug]),
        "test_url": reverse("backend-test", args=[backend.slug]),
        "remove_url": reverse("backend-remove", args=[backend.slug]),
    }
