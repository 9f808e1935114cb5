"""Every route, one screenful. The page's socket and the machine wire are in asgi.py."""

from django.urls import path

from webapp.views import backends, load, loadhelp, operator, pages, runs

urlpatterns = [
    path("", pages.arena, name="arena"),
    path("help/", pages.help_page, name="help"),
    path("help/simulator/", pages.accuracy, name="accuracy"),
    path("help/speed/", pages.speed, name="speed"),
    path("runs/", runs.index, name="runs"),
    path("runs/<slug:comparison_id>/", runs.comparison, name="comparison"),
    path("runs/<slug:comparison_id>/record.json", runs.record, name="record"),
    path("runs/<slug:comparison_id>/<slug:turn_id>/", runs.turn, name="turn"),
    path("runs/<slug:comparison_id>/<slug:turn_id>/keep/", runs.keep, name="keep"),
    path("backends/", backends.index, name="backends"),
    path("backends/add/", backends.add, name="backend-add"),
    path("backends/unlock/", operator.unlock, name="unlock"),
    path("backends/<slug:slug>/edit/", backends.edit, name="backend-edit"),
    path("backends/<slug:slug>/test/", backends.test, name="backend-test"),
    path("backends/<slug:slug>/remove/", backends.remove, name="backend-remove"),
    path("help/load/", loadhelp.explain, name="help-load"),
    path("load/", load.index, name="load"),
    path("load/start/", load.start, name="load-start"),
    path("load/drawer/", load.drawer, name="load-drawer"),
    path("load/compare/", load.compare, name="load-compare"),
    path("load/compare/<str:a_id>/<str:b_id>/<str:figure>.json", load.compare_chart, name="load-compare-chart"),
    path("load/<str:run_id>/", load.show, name="load-run"),
    path("load/<str:run_id>/live.json", load.live, name="load-live"),
    path("load/<str:run_id>/progress/", load.progress, name="load-progress"),
    path("load/<str:run_id>/live-charts.json", load.live_charts, name="load-live-charts"),
    path("load/<str:run_id>/steer/", load.steer, name="load-steer"),
    path("load/<str:run_id>/stop/", load.stop, name="load-stop"),
    path("load/<str:run_id>/delete/", load.delete, name="load-delete"),
    path("load/<str:run_id>/chart/<str:name>.<str:kind>", load.chart, name="load-chart"),
    path("load/<str:run_id>/file/<str:name>", load.file, name="load-file"),
    path("healthz", pages.healthz, name="healthz"),
    path("static/<path:path>", pages.asset, name="asset"),
]
