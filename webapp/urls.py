"""Every route, one screenful. The page's socket and the machine wire are in asgi.py."""

from django.urls import path

from webapp.views import backends, pages, runs

urlpatterns = [
    path("", pages.arena, name="arena"),
    path("help/", pages.help_page, name="help"),
    path("runs/", runs.index, name="runs"),
    path("runs/<slug:comparison_id>/", runs.comparison, name="comparison"),
    path("runs/<slug:comparison_id>/record.json", runs.record, name="record"),
    path("runs/<slug:comparison_id>/<slug:turn_id>/", runs.turn, name="turn"),
    path("runs/<slug:comparison_id>/<slug:turn_id>/keep/", runs.keep, name="keep"),
    path("backends/", backends.index, name="backends"),
    path("backends/add/", backends.add, name="backend-add"),
    path("backends/unlock/", backends.unlock, name="unlock"),
    path("backends/<slug:slug>/edit/", backends.edit, name="backend-edit"),
    path("backends/<slug:slug>/test/", backends.test, name="backend-test"),
    path("backends/<slug:slug>/remove/", backends.remove, name="backend-remove"),
    path("healthz", pages.healthz, name="healthz"),
    path("static/<path:path>", pages.asset, name="asset"),
]
