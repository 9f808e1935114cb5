"""Backends as an operator keeps them: list, add, edit, test, remove."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
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
from webapp.views.operator import is_operator, operator_only

may_change = operator_only("change backends")


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


@require_http_methods(["GET", "POST"])
@may_change
def add(request: HttpRequest) -> HttpResponse:
    return _edit(request, Backend(), "Add a backend", reverse("backend-add"))


@require_http_methods(["GET", "POST"])
@may_change
def edit(request: HttpRequest, slug: str) -> HttpResponse:
    return _edit(request, _backend(slug), f"Edit {slug}", reverse("backend-edit", args=[slug]))


@require_POST
@may_change
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
@may_change
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
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK
    return render(request, "backends/_form.html" if htmx else "backends/edit.html", context, status=status)


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
