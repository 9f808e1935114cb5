"""The arena, the help page and what is served beside them."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from functools import lru_cache
from pathlib import Path

from django.contrib.staticfiles import finders
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from webapp import drain, queries
from webapp.models import Backend
from webapp.services.accuracy import kept
from webapp.services.arenas import arenas
from webapp.services.database import in_thread
from webapp.services.opening import open_again, open_arena
from webapp.services.speed import kept as kept_speed
from webapp.services.writer import writer
from webapp.views import contexts


@require_safe
@ensure_csrf_cookie
async def arena(request: HttpRequest) -> HttpResponse:
    """Show the arena that the address names, or a new one; nothing is sent to a backend by opening it."""
    rows = await in_thread(queries.all_backends)
    found = arenas.find(request.GET.get("arena", ""))
    if found is None and (run_id := request.GET.get("again", "")):
        found = await open_again(run_id)
    if found is None:
        lanes = request.GET.getlist("lane")
        found = await open_arena(lanes, scenario=request.GET.get("scenario", ""))
        if prompt := request.GET.get("prompt", ""):
            found.fill(prompt)
    context = {
        "nav": "arena",
        "arena": contexts.arena_context(found, [queries.spec_of(row) for row in rows]),
        "prompt": contexts.prompt_context(found),
        "verdict": contexts.verdict_context(found.verdict, found.running),
        "notice": contexts.notice_context(found),
        "definitions": contexts.definitions(),
    }
    return render(request, "arena/page.html", context)


@require_safe
def help_page(request: HttpRequest) -> HttpResponse:
    return render(request, "help/index.html", {"nav": "help", "definitions": contexts.definitions()})


@require_safe
def accuracy(request: HttpRequest) -> HttpResponse:
    """Show how far the simulator is off against every published measurement that ships with it."""
    tables = [contexts.accuracy_table(table) for table in kept()["tables"]]
    rows = contexts.accuracy_rows(kept()["measured_rows"])
    return render(request, "help/simulator.html", {"nav": "help", "tables": tables, "rows": rows})


@require_safe
def speed(request: HttpRequest) -> HttpResponse:
    """Show what Splitsecond itself costs, beside references."""
    return render(request, "help/speed.html", {"nav": "help", "rows": contexts.speed_rows(kept_speed())})


@require_safe
async def healthz(request: HttpRequest) -> JsonResponse:
    """Report whether this process can serve: 200, or 503 while it ends or its database does not answer."""
    database = "ok"
    try:
        await in_thread(_count_backends)
    except Exception as error:
        database = type(error).__name__
    healthy = database == "ok" and not drain.draining()
    body = {
        "status": "ok" if healthy else "draining" if drain.draining() else "unhealthy",
        "version": contexts.app_version(),
        "database": database,
        "database_vendor": connection.vendor,
        "rows_waiting": writer.backlog,
        "rows_lost": writer.lost,
        "saving_delayed": writer.delayed,
        "arenas_running": sum(arena.running for arena in arenas),
    }
    return JsonResponse(body, status=200 if healthy else 503)


def _count_backends() -> int:
    return Backend.objects.count()


@require_safe
async def asset(request: HttpRequest, path: str) -> HttpResponse:
    """Serve one static file from where it lies, so that there is no collecting step that could be forgotten.

    A view of our own because the library's middleware is synchronous, and one synchronous layer would keep Django
    from telling a stream that its client has gone.
    """
    body, etag = await asyncio.to_thread(_found, path)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers=headers)
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return HttpResponse(body, f"{kind}; charset=utf-8" if kind.startswith("text/") else kind, headers=headers)


def _found(path: str) -> tuple[bytes, str]:
    place = finders.find(path)
    if not isinstance(place, str) or not Path(place).is_file():
        raise Http404
    return _file(place, Path(place).stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _file(path: str, changed_ns: int) -> tuple[bytes, str]:
    body = Path(path).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:20]}"'
