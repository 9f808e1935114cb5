"""Backends in the page: who may change them, what is refused, and what a test finds out."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from django.test import Client

from tests.live import Browser, LiveApp, live, start_server
from tests.upstreams import Upstream, closed_port
from tests.upstreams.wire import TEXT
from tests.web.conftest import AddBackend, OpenPage, asked
from webapp.models import Backend

GOOD = {"slug": "mine", "label": "Mine", "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
BAD = {
    "no slug": {"slug": ""},
    "a slug with a space": {"slug": "two words"},
    "a taken slug": {"slug": "oci-llama-70b"},
    "a long slug": {"slug": "x" * 61},
    "no label": {"label": ""},
    "a long label": {"label": "x" * 81},
    "no model": {"model": ""},
    "an unknown kind": {"kind": "telnet"},
    "no URL": {"base_url": ""},
    "another scheme": {"base_url": "ftp://127.0.0.1/v1"},
    "a file": {"base_url": "file:///etc/passwd"},
    "no host": {"base_url": "http:///v1"},
    "a user in the URL": {"base_url": "http://user:secret@127.0.0.1/v1"},
    "a query": {"base_url": "http://127.0.0.1/v1?key=secret"},
    "a fragment": {"base_url": "http://127.0.0.1/v1#x"},
    "a backslash": {"base_url": "http://127.0.0.1\\@evil.example/v1"},
    "a bad port": {"base_url": "http://127.0.0.1:99999/v1"},
    "port 0": {"base_url": "http://127.0.0.1:0/v1"},
    "a broken IPv6 address": {"base_url": "http://[::1/v1"},
    "a control character": {"base_url": "http://127.0.0.1/\x01v1"},
    "the chat URL": {"base_url": "http://127.0.0.1/v1/chat/completions"},
    "a long URL": {"base_url": "http://127.0.0.1/" + "x" * 300},
    "a key itself": {"key_ref": "sk-1234567890"},
    "a nameless variable": {"key_ref": "env:"},
    "an odd variable": {"key_ref": "env:A B"},
    "a price that is no number": {"price_in_usd_per_mtok": "cheap"},
    "an endless price": {"price_in_usd_per_mtok": "1e999"},
}


@pytest.fixture
def browser(live_app: LiveApp) -> Browser:
    return live_app.browser()


def slugs(app: LiveApp) -> set[str]:
    return {model["id"] for model in app.json("/v1/models")["data"]}


def test_a_backend_is_added_edited_and_removed_without_script(live_app: LiveApp, browser: Browser) -> None:
    assert browser.post("/backends/add/", GOOD).status == 302
    page = browser.get("/backends/").text
    assert 'id="backend-mine"' in page
    assert browser.post("/backends/mine/edit/", {**GOOD, "label": "Renamed <b>"}).status == 302
    assert "Renamed &lt;b&gt;" in browser.get("/backends/").text
    assert browser.post("/backends/mine/remove/").status == 302
    assert "mine" not in slugs(live_app)


def test_with_htmx_a_save_redirects_the_page_and_a_removal_answers_with_nothing(
    live_app: LiveApp, browser: Browser
) -> None:
    saved = browser.post("/backends/add/", GOOD, HX_Request="true")
    assert (saved.status, saved.headers["HX-Redirect"]) == (200, "/backends/")
    removed = browser.post("/backends/mine/remove/", HX_Request="true")
    assert (removed.status, removed.body) == (200, b"")


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_saved(
    fields: dict[str, str], live_app: LiveApp, browser: Browser
) -> None:
    before = slugs(live_app)
    for htmx in ({}, {"HX_Request": "true"}):
        reply = browser.post("/backends/add/", {**GOOD, **fields}, **htmx)
        assert reply.status == 422
        assert 'class="form-error"' in reply.text
        assert reply.text.lstrip().startswith("<form" if htmx else "<!doctype html")
    assert slugs(live_app) == before


def test_all_that_is_wrong_is_said_at_once_and_a_pasted_key_is_not_shown_again(
    live_app: LiveApp, browser: Browser
) -> None:
    wrong = {"slug": "oci-llama-70b", "base_url": "ftp://127.0.0.1/v1", "key_ref": "sk-1234567890", "kind": "telnet"}
    shown = browser.post("/backends/add/", {**GOOD, **wrong}).text
    for name in wrong:
        assert f'id="id_{name}_error"' in shown
    assert "There is already a backend with this name" in shown
    assert "sk-1234567890" not in shown
    assert 'value="ftp://127.0.0.1/v1"' in shown
    long = browser.post("/backends/add/", {**GOOD, "key_ref": "sk-1234567890" * 30}).text
    assert "sk-1234567890" not in long


def test_the_form_says_which_fields_are_needed(browser: Browser) -> None:
    for path, needed in (("add/", True), ("oci-llama-70b/edit/", False)):  # the latter is our own simulator's
        shown = browser.get(f"/backends/{path}").text
        url = re.search(r'<input[^>]*name="base_url"[^>]*>', shown)
        assert url is not None
        assert ("required" in url.group()) is needed
        assert ("Base URL <small>optional" in shown) is not needed


def test_a_key_does_not_follow_a_backend_to_another_address(live_app: LiveApp, browser: Browser) -> None:
    fields = {**GOOD, "key_ref": "env:THE_KEY"}
    browser.post("/backends/add/", fields)
    try:
        for url in ("http://127.0.0.1:9/v2", "http://127.0.0.1:9/v1/"):
            browser.post("/backends/mine/edit/", {**fields, "base_url": url})
            assert "env:THE_KEY" in browser.get("/backends/mine/edit/").text
        for url in ("http://127.0.0.1:10/v1", "https://127.0.0.1:10/v1", "https://127.0.0.2:10/v1"):
            browser.post("/backends/mine/edit/", {**fields, "base_url": url})
            assert "env:THE_KEY" not in browser.get("/backends/mine/edit/").text
            browser.post("/backends/mine/edit/", {**fields, "base_url": url})
            assert "env:THE_KEY" in browser.get("/backends/mine/edit/").text
    finally:
        browser.post("/backends/mine/remove/")


@pytest.mark.parametrize("path", ["add/", "oci-llama-70b/edit/", "oci-llama-70b/test/", "oci-llama-70b/remove/"])
def test_every_change_needs_the_forms_token(path: str, live_app: LiveApp, browser: Browser) -> None:
    before = slugs(live_app)
    browser.get("/")
    assert browser.post(f"/backends/{path}", GOOD, csrf=False).status == 403
    wrong = {**GOOD, "csrfmiddlewaretoken": "x" * 64}
    assert browser.post(f"/backends/{path}", wrong, csrf=False).status == 403
    assert slugs(live_app) == before


@pytest.mark.parametrize("path", ["oci-llama-70b/test/", "oci-llama-70b/remove/", "unlock/"])
def test_what_acts_is_not_reached_by_a_link(path: str, browser: Browser) -> None:
    assert browser.get(f"/backends/{path}").status == 405


def test_a_foreign_page_cannot_post_even_with_a_token(browser: Browser) -> None:
    assert browser.post("/backends/add/", GOOD, Origin="https://evil.example").status == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto"])
def test_behind_a_proxy_nobody_is_the_operator_without_a_token(header: str, live_app: LiveApp) -> None:
    browser = live_app.browser()
    named = {header: "127.0.0.1"}
    before = slugs(live_app)
    for path in ("add/", "oci-llama-70b/edit/", "oci-llama-70b/test/", "oci-llama-70b/remove/"):
        assert browser.post(f"/backends/{path}", GOOD, **named).status == 403
    assert browser.get("/backends/add/", **named).status == 403
    assert "/edit/" not in browser.get("/backends/", **named).text
    assert slugs(live_app) == before


@pytest.mark.parametrize("path", ["edit/", "test/", "remove/"])
def test_a_backend_that_is_not_there_is_not_found(path: str, browser: Browser) -> None:
    assert browser.post(f"/backends/no-such-backend/{path}", GOOD).status == 404


async def test_testing_a_backend_makes_one_request_and_says_what_it_found(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend
) -> None:
    slug = await add_backend("ok-reasoning")
    browser = live_app.browser()
    reply = await asyncio.to_thread(browser.post, f"/backends/{slug}/test/", None, HX_Request="true")
    assert reply.status == 200
    assert f'id="test-{slug}"' in reply.text
    assert 'data-ok="true"' in reply.text
    for finding in ("Reachable", "plain HTTP", "token counts are exact", "streamed apart", "[DONE]", " ms"):
        assert finding in reply.text
    assert len(asked(upstream)) == 1
    assert "in the field reasoning<" in reply.text
    whole = await asyncio.to_thread(browser.post, f"/backends/{slug}/test/")
    assert 'data-ok="true"' in whole.text
    assert whole.text.lstrip().startswith("<!doctype html>")


async def test_testing_a_backend_that_refuses_says_whose_fault_it_is(
    live_app: LiveApp, add_backend: AddBackend
) -> None:
    with closed_port() as url:
        slug = await add_backend(base_url=url)
        reply = await asyncio.to_thread(live_app.browser().post, f"/backends/{slug}/test/")
    assert 'data-ok="false"' in reply.text
    assert "is not accepting connections" in reply.text


async def test_a_test_leaves_running_lanes_alone(
    upstream: Upstream, live_app: LiveApp, add_backend: AddBackend, open_here: OpenPage
) -> None:
    browser = live_app.browser()
    async with open_here(await add_backend("ok-role-first"), await add_backend("ok")) as page:
        other = await add_backend("ok-multi")
        await page.send("run", prompt="Hello")
        await page.until("state", state="prefill")
        await asyncio.to_thread(browser.post, f"/backends/{other}/test/")
        await page.until("done")
        assert [end["error"] for end in page.all("end")] == ["", ""]
        assert page.text(page.lanes[0]) == TEXT
        await page.run("Once more")
        assert {end["outcome"] for end in page.all("end")} == {"done"}


def test_with_a_token_the_operator_unlocks_the_page_and_a_new_token_locks_it_again(
    live_app: LiveApp, tmp_path: Path
) -> None:
    with live(tmp_path, OPERATOR_TOKEN="correct horse") as app:
        browser = app.browser()
        assert "/edit/" not in browser.get("/backends/").text
        assert browser.post("/backends/add/", GOOD).status == 403
        for wrong in ("", "correct", "correct horse ", "é"):
            assert browser.post("/backends/unlock/", {"token": wrong}).status == 403
        assert browser.post("/backends/add/", GOOD).status == 403
        opened = browser.post("/backends/unlock/", {"token": "correct horse"})
        assert opened.status == 302
        cookie = opened.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "horse" not in cookie
        assert browser.post("/backends/add/", GOOD).status == 302
        second, url = start_server({**app.env, "OPERATOR_TOKEN": "another"}, tmp_path)
        try:
            browser.url = url
            assert browser.post("/backends/mine/remove/").status == 403
        finally:
            assert second.end() == ""


def test_without_a_token_there_is_nothing_to_unlock(browser: Browser) -> None:
    assert browser.post("/backends/unlock/", {"token": ""}).status == 403


@pytest.mark.parametrize("address", ["10.0.0.5", "::ffff:10.0.0.5", "fe80::1", "", "nonsense"])
def test_a_machine_on_the_network_is_not_the_operator(address: str, rows: None) -> None:
    client = Client(REMOTE_ADDR=address)
    assert client.get("/backends/").status_code == 200
    assert client.get("/backends/add/").status_code == 403
    assert client.post("/backends/add/", GOOD).status_code == 403
    assert not Backend.objects.exists()


def test_a_refusal_says_why_and_where_to_read_who_may(rows: None) -> None:
    refused = Client(REMOTE_ADDR="10.0.0.5").get("/backends/add/").content.decode()
    assert "Only the operator may change backends" in refused
    assert 'href="/help/#operator"' in refused
    assert 'id="operator"' in Client().get("/help/").content.decode()


def test_a_form_without_its_token_is_refused_on_a_page_of_ours(rows: None) -> None:
    refused = Client(enforce_csrf_checks=True).post("/backends/add/", GOOD).content.decode()
    assert "Reload the page you came from" in refused
    assert "css/tokens.css" in refused


def test_where_a_key_lies_is_told_to_the_operator_only(rows: None) -> None:
    Backend.objects.create(**GOOD, key_ref="file:/home/somebody/key")
    assert "/home/somebody/key" in Client().get("/backends/").content.decode()
    assert "/home/somebody/key" not in Client(REMOTE_ADDR="10.0.0.5").get("/backends/").content.decode()
