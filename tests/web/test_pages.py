"""Every page: it acts on nothing, carries its headers, survives odd addresses."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from channels.testing import HttpCommunicator
from django.apps import apps
from django.test import Client
from django.urls import URLPattern, reverse

from tests.live import LiveApp
from tests.web.kept import kept_run, shown
from webapp import drain
from webapp.asgi import application
from webapp.middleware import HEADERS
from webapp.models import Backend, Comparison
from webapp.services import backends
from webapp.services.accuracy import kept as accuracy
from webapp.urls import urlpatterns
from webapp.views import pages

ACTING = {"backend-test", "backend-remove", "unlock", "keep"}  # POST only


# Every address of these shows something; other routes may answer otherwise, but act on nothing all the same.
PAGES = {
    "arena",
    "help",
    "help-load",
    "accuracy",
    "speed",
    "runs",
    "comparison",
    "turn",
    "backends",
    "backend-add",
    "backend-edit",
}


FILES = {"record", "healthz", "asset"}


MACHINE_WIRE = ("/v1/models", "/v1/chat/completions", "/v1/nothing")


ODD = ("%00", "%ff", "..%2f..%2fmanage.py", "a" * 3000, "%F0%9F%92%A9", "'--", "<script>", "\\..\\x")


def routes() -> list[URLPattern]:
    return [route for route in urlpatterns if isinstance(route, URLPattern)]


def address(route: URLPattern, kept: Comparison | None = None) -> str:
    """Return an address of this route, of rows that exist where `kept` is given."""
    samples: dict[str, Any] = {
        "comparison_id": kept.id if kept else "x",
        "turn_id": kept.turns.all()[0].id if kept else "y",
        "slug": "oci-llama-70b",
        "path": "css/layout.css",
    }
    assert route.name is not None
    return reverse(route.name, kwargs={name: samples.get(name, "x") for name in route.pattern.converters})


def everything() -> dict[str, list[dict[str, Any]]]:
    models = apps.get_app_config("webapp").get_models()
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


@pytest.fixture
def trap(rows: None) -> Iterator[socket.socket]:
    """Seeded backends whose address is a port that counts who calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        backends.seed()
        Backend.objects.update(base_url=f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        yield server


def test_looking_at_any_page_changes_nothing_and_calls_nobody(trap: socket.socket) -> None:
    _, kept = kept_run("ok", "fault-u14")
    before = everything()
    client = Client()
    for route in routes():
        reply = client.get(address(route, kept))
        shown_or_refused = (200,) if route.name in PAGES | FILES else (200, 404, 405)
        assert reply.status_code in ((405,) if route.name in ACTING else shown_or_refused), route.name
    for query in ("?prompt=Run+me&lane=oci-llama-70b&scenario=agent&action=run", "?arena=x&run=y", "?key=1"):
        assert client.get("/" + query).status_code == 200
    assert everything() == before
    with pytest.raises(BlockingIOError):
        trap.accept()


def test_an_address_fills_the_prompt_and_sends_nothing(trap: socket.socket) -> None:
    page = (
        Client().get("/", {"prompt": '</textarea><script>alert(1)</script>"', "lane": "oci-llama-70b"}).content.decode()
    )
    assert "&lt;/textarea&gt;&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert page.count('class="lane"') == 1
    with pytest.raises(BlockingIOError):
        trap.accept()


@pytest.mark.parametrize("path", [*map(address, routes()), *MACHINE_WIRE])
def test_every_address_carries_the_security_headers(path: str, live_app: LiveApp) -> None:
    reply = live_app.browser().get(path)
    for name, value in HEADERS.items():
        assert reply.headers[name] == value
    assert reply.headers["Server"] is None
    policy = dict(part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in " ".join(policy.values())
    assert "data:" not in " ".join(policy.values())


@pytest.mark.parametrize(
    "path", ["/nothing-here", "/static/nothing.css", "/runs/none/", "/runs/none/none/", "/v1/nothing"]
)
def test_what_is_not_there_says_so_with_the_same_headers(path: str, live_app: LiveApp) -> None:
    reply = live_app.browser().get(path)
    assert reply.status == 404
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "path", ["/{}", "/static/{}", "/runs/{}/", "/runs/x/{}/", "/runs/{}/record.json", "/runs/?page={}"]
)
def test_odd_addresses_are_not_found_and_break_nothing(path: str, odd: str, rows: None) -> None:
    reply = Client(raise_request_exception=False).generic("GET", path.format(odd))
    assert reply.status_code in (200, 400, 404)
    assert (reply.status_code == 200) == ("page=" in path)


@pytest.mark.parametrize(
    "query", ["?arena=%00", "?lane=%00&lane=x", "?scenario=none", "?prompt=%00", "?arena=" + "x" * 3000]
)
def test_odd_queries_open_an_arena_all_the_same(query: str, rows: None) -> None:
    backends.seed()
    assert Client().get("/" + query).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80@evil.example", "[::2]"])
def test_a_host_that_is_not_ours_is_refused_and_fills_no_log(host: str, live_app: LiveApp) -> None:
    before = live_app.log.count("\n")
    for path in ("/", "/v1/models", "/healthz", "/static/css/layout.css"):
        assert live_app.browser().get(path, Host=host).status == 400
    assert live_app.log.count("\n") - before <= 8


def test_a_healthy_process_says_so(rows: None) -> None:
    reply = Client().get("/healthz")
    assert reply.status_code == 200
    body = reply.json()
    assert (body["status"], body["database"], body["rows_lost"]) == ("ok", "ok", body["rows_lost"])


def test_a_process_that_is_ending_is_not_healthy(rows: None) -> None:
    drain.begin()
    try:
        reply = Client().get("/healthz")
    finally:
        drain.reset()
    assert (reply.status_code, reply.json()["status"]) == (503, "draining")


def test_a_process_without_its_database_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> int:
        raise ConnectionError("secret address")

    monkeypatch.setattr(pages, "_count_backends", gone)
    reply = Client().get("/healthz")
    assert (reply.status_code, reply.json()["status"]) == (503, "unhealthy")
    assert "secret" not in reply.content.decode()


def test_a_static_file_that_is_known_is_not_sent_again(live_app: LiveApp) -> None:
    browser = live_app.browser()
    first = browser.get("/static/css/layout.css")
    assert first.headers["Content-Type"] == "text/css; charset=utf-8"
    again = browser.get("/static/css/layout.css", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


def test_scripts_are_served_as_scripts(live_app: LiveApp) -> None:
    kind = live_app.browser().get("/static/js/page.js").headers["Content-Type"]
    assert kind.startswith("text/javascript")


def test_no_page_holds_inline_script_or_style(rows: None) -> None:
    backends.seed()
    _, kept = kept_run("ok")
    for route in routes():
        if route.name not in PAGES:
            continue
        page = shown(address(route, kept))
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page), route.name
        assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", page)), route.name


def test_many_pages_at_once_are_all_served(live_app: LiveApp) -> None:
    async def all_of_them() -> list[int]:
        browser = live_app.browser()
        replies = await asyncio.gather(*(asyncio.to_thread(browser.get, "/runs/") for _ in range(30)))
        return [reply.status for reply in replies]

    assert asyncio.run(all_of_them()) == [200] * 30


async def test_a_model_with_nul_in_its_name_is_not_there(rows: None) -> None:
    body = orjson.dumps({"model": "a\0b", "messages": [{"role": "user", "content": "x"}]})
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    communicator = HttpCommunicator(application, "POST", "/v1/chat/completions", body=body, headers=headers)
    response = await communicator.get_response(timeout=60)
    assert response["status"] == 404
    assert orjson.loads(response["body"])["error"]["code"] == "model_not_found"


def test_the_help_page_says_what_rows_were_used_for_and_what_to_expect_of_others() -> None:
    page, rows = " ".join(Client().get(reverse("accuracy")).content.decode().split()), accuracy()["measured_rows"]
    assert f"{rows['n_fitted']} <b>fitted</b>" in page
    assert f"{rows['n_chosen']} <b>chosen</b>" in page
    assert f"{rows['n_not_fitted']} <b>not fitted</b>" in page
    assert rows["n_fitted"] + rows["n_chosen"] + rows["n_not_fitted"] == rows["n"]
    for part in rows["held_out"].values():
        assert f"time per token <b>{part['tpot_mape'] * 100:.1f} %</b> off" in page
