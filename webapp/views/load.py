"""Load runs in the page: start, watch, steer, stop, list, compare and delete them; their charts and files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST, require_safe

from webapp import queries
from webapp.clock import now_ns
from webapp.core import charts, livecharts
from webapp.models import LoadRun
from webapp.services import charts as chart_files
from webapp.services import load, loadplans
from webapp.services.database import in_thread
from webapp.services.loadplans import Refusal, Where
from webapp.services.looplag import loop_lag
from webapp.views import loadcomparisons, loadforms, loadprogress, loadwords
from webapp.views import loadcontexts as contexts
from webapp.views.contexts import definitions
from webapp.views.loadforms import values_of
from webapp.views.operator import is_operator, operator_only

PER_PAGE = MOST_TICKED = 20
FILES = {"summary.json": "application/json", "requests.jsonl": "application/x-ndjson",
         "vllm.json": "application/json", "report.html": "text/html; charset=utf-8"}  # fmt: skip
PIECE = 256 * 1024
LAG_WINDOW_NS = 10_000_000_000  # as long as the live figures look back
may_load = operator_only("send load")


@require_safe
@ensure_csrf_cookie
def index(request: HttpRequest) -> HttpResponse:
    again = _found(request.GET.get("again", ""))
    chosen = again.backends if again else request.GET.getlist("backend")
    return _index(request, chosen or loadforms.first_chosen(queries.all_backends()), values_of(again))


def _index(
    request: HttpRequest, chosen: list[str], values: dict[str, str], problems: dict[str, str] | None = None
) -> HttpResponse:
    page = Paginator(LoadRun.objects.defer("charts"), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "nav": "load",
        "runs": [contexts.row(run) for run in page],
        "page_obj": page,
        "form": loadforms.form(queries.all_backends(), chosen, values, problems),
        "can_load": is_operator(request),
        "open_form": bool(problems or values or not page),
    }
    return render(request, "load/list.html", context, status=_status(problems))


@require_safe
@ensure_csrf_cookie
def drawer(request: HttpRequest) -> HttpResponse:
    """Show the arena's load controls: of the run that is going on, else of the last (`after`), to start another."""
    running = LoadRun.objects.filter(state=LoadRun.State.RUNNING, asked_by="page").first()
    run = running or _found(request.GET.get("after", ""))
    stopping = run is not None and load.is_stopping(run.id)
    return _drawer(request, run, request.GET.getlist("backend"), values_of(run), stopping=stopping)


def _drawer(
    request: HttpRequest,
    run: LoadRun | None,
    chosen: list[str],
    values: dict[str, str],
    problems: dict[str, str] | None = None,
    stopping: bool = False,
) -> HttpResponse:
    context = {
        "stopping": stopping,
        "form": loadforms.form(queries.all_backends(), run.backends if run else chosen, values, problems),
        "run": contexts.live(run) if run else None,
        "vega": chart_files.bundle_name(),
        "can_load": is_operator(request),
    }
    return render(request, "load/_drawer.html", context, status=_status(problems))


@require_POST
@may_load
def start(request: HttpRequest) -> HttpResponse:
    """Start a run; answer with its page, or within the arena with the drawer's controls."""
    asked, from_drawer = loadforms.LoadForm(request.POST), "drawer" in request.POST
    run = _started(request, asked, at_once=from_drawer) if asked.is_valid() else None
    chosen, values = request.POST.getlist("backend"), dict(asked.data)
    if from_drawer:
        return _drawer(request, run, chosen, values, asked.problems)
    return redirect("load-run", run.id) if run else _index(request, chosen, values, asked.problems)


def _started(request: HttpRequest, asked: loadforms.LoadForm, *, at_once: bool) -> LoadRun | None:
    """Start what a valid form asks for, all users `at_once` where somebody is looking; None where that is refused."""
    try:
        plan, keys = loadplans.plan(asked.wishes(), _where(request))
        if at_once:
            plan = replace(plan, ramp_s=0.0).checked()
        return load.start(plan, keys, title=asked.cleaned_data["title"])
    except ValueError as refused:
        asked.refuse(refused)
        return None


@require_POST
@may_load
def steer(request: HttpRequest, run_id: str) -> HttpResponse:
    """Change the users, or the requests per second, of a run that is going on."""
    try:
        wish = loadforms.steering(request.POST)
    except Refusal as refused:
        return JsonResponse({"error": str(refused)}, status=400)
    run = _run(run_id)
    if run.state == LoadRun.State.RUNNING and not loadwords.steers(run):
        return JsonResponse({"error": "The load of this run cannot be changed while it goes on."}, status=409)
    if not load.steer(run.id, wish):
        return JsonResponse({"error": "This load run is not going on any more."}, status=409)
    return HttpResponse(status=204)


@require_POST
@may_load
def stop(request: HttpRequest, run_id: str) -> HttpResponse:
    run = _run(run_id)
    load.stop(run.id)
    if "drawer" in request.POST:
        return _drawer(request, run, run.backends, values_of(run), stopping=True)
    return redirect("load-run", run.id)


@require_POST
@may_load
def delete(request: HttpRequest, run_id: str) -> HttpResponse:
    run = _run(run_id)
    try:
        load.delete(run)
    except Refusal as refused:
        context = {"nav": "load", "why": str(refused), "url": reverse("load-run", args=[run.id])}
        return render(request, "load/refused.html", context, status=HTTPStatus.CONFLICT)
    return redirect("load")


@require_safe
@ensure_csrf_cookie
def show(request: HttpRequest, run_id: str) -> HttpResponse:
    """Show a run: live while it goes on, its results afterwards."""
    run = _run(run_id)
    context = {"nav": "load", "run": contexts.result(run), "can_load": is_operator(request)}
    context["definitions"] = definitions()
    context["progress"] = loadprogress.progress(run)
    return render(request, "load/run.html", context)


@require_safe
def progress(request: HttpRequest, run_id: str) -> HttpResponse:
    """Show how far a run has come that is going on, as a fragment of its page."""
    return render(request, "load/_progress.html", {"progress": loadprogress.progress(_run(run_id))})


@require_safe
async def live(request: HttpRequest, run_id: str) -> JsonResponse:
    """Return what was written about a run after `after` (an offset that the last answer gave), and, where that is
    anything, the reasons why its latest times are not the servers' own.
    """
    after = request.GET.get("after", "0")
    run, lines, offset = await in_thread(_live, run_id, int(after) if after.isdecimal() else 0)
    answer = {"state": run.state, "after": offset, "lines": lines}
    if lines:
        lag_ns = None if run.wire == "direct" else loop_lag.p99_ns(now_ns() - LAG_WINDOW_NS, now_ns())
        answer["doubts"] = loadwords.doubts(lines[-1], lag_ns)
    return JsonResponse(answer)


def _live(run_id: str, after: int) -> tuple[LoadRun, list[dict[str, Any]], int]:
    run = LoadRun.objects.only("state", "folder", "wire").filter(id=run_id).first()
    if run is None:
        raise Http404("There is no such load run.")
    return run, *load.live(run, after)


@require_safe
def live_charts(request: HttpRequest, run_id: str) -> JsonResponse:
    return JsonResponse(livecharts.specs(_run(run_id).backends))


@require_safe
async def chart(request: HttpRequest, run_id: str, name: str, kind: str) -> HttpResponse:
    """Return one chart: as its specification, or as a file."""
    found = await in_thread(lambda: _named_chart(_run(run_id), name))
    if found is None:
        raise Http404("There is no such chart.")
    return await _chart(found, kind, f"load-{run_id}-{name}")


def _named_chart(run: LoadRun, name: str) -> charts.Spec | None:
    return loadprogress.growing(run) if name == contexts.GROWING else contexts.charts(run).get(name)


@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    """Show two runs side by side, the earlier as A; without two, say how to choose them."""
    ids = request.GET.getlist("run")
    runs = sorted(filter(None, map(_found, dict.fromkeys(ids[:MOST_TICKED]))), key=lambda run: run.created_at)
    if len(runs) != 2:
        return render(request, "load/compare.html", {"nav": "load", "both": None})
    both = loadcomparisons.compared(*runs)
    return render(request, "load/compare.html", {"nav": "load", "both": both})


@require_safe
async def compare_chart(request: HttpRequest, a_id: str, b_id: str, figure: str) -> HttpResponse:
    """Return the distributions of two runs on one pair of axes."""
    if figure not in charts.FIGURE_TITLES:
        raise Http404("There is no such chart.")
    spec = await in_thread(lambda: loadcomparisons.overlaid(_run(a_id), _run(b_id), figure))
    return await _chart(spec, "json", "")


@require_safe
async def file(request: HttpRequest, run_id: str, name: str) -> HttpResponseBase:
    """Hand out one of the files that a run has left."""
    run = await in_thread(_run, run_id)
    path = Path(run.folder) / name
    if name in FILES and not path.is_file():
        await in_thread(load.settle, run)  # its page links the report before that is written
    if name not in FILES or not path.is_file():
        raise Http404("There is no such file.")
    headers = {"Content-Disposition": f'attachment; filename="load-{run.id}-{name}"'}
    return StreamingHttpResponse(_pieces(path), content_type=FILES[name], headers=headers)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as source:
        while piece := await asyncio.to_thread(source.read, PIECE):
            yield piece


async def _chart(spec: charts.Spec, kind: str, name: str) -> HttpResponse:
    if kind == "json":
        return JsonResponse(spec)
    if kind not in chart_files.FORMATS:
        raise Http404("There is no such format.")
    try:
        made = await chart_files.export(spec, kind)
    except chart_files.ChartError as failed:
        return HttpResponse(str(failed), "text/plain", 500)
    headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
    return HttpResponse(made, chart_files.FORMATS[kind], headers=headers)


def _status(problems: Mapping[str, str] | None) -> HTTPStatus:
    """Return the status of a page with a form: 422 where it says what was wrong with what had been sent."""
    return HTTPStatus.UNPROCESSABLE_ENTITY if problems else HTTPStatus.OK


def _found(run_id: str) -> LoadRun | None:
    return None if "\0" in run_id else LoadRun.objects.filter(id=run_id).first()


def _run(run_id: str) -> LoadRun:
    found = _found(run_id)
    if found is None:
        raise Http404("There is no such load run.")
    return found


def _where(request: HttpRequest) -> Where:
    """Return where this very process listens, which may be another port than the settings'."""
    host, port = request.META["SERVER_NAME"], request.META["SERVER_PORT"]
    return Where(f"http://{f'[{host}]' if ':' in host else host}:{port}", settings.SIMULATOR_URL)
