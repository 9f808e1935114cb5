"""Asking for a load run: who may, what is wrong with a wish, and asking for the same again."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from tests.web.load_runs import finished
from webapp.models import Backend, LoadRun

pytestmark = pytest.mark.usefixtures("rows")


@pytest.mark.parametrize("action", ["start/", "{}/steer/", "{}/stop/", "{}/delete/"])
def test_only_the_operator_may_send_steer_stop_and_delete(action: str) -> None:
    run = finished(10)
    path = f"/load/{action.format(run.id)}"
    assert Client(REMOTE_ADDR="192.0.2.7").post(path).status_code == 403
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert Client().get(path).status_code == 405
    assert LoadRun.objects.filter(id=run.id).exists()


def test_a_wrong_wish_is_answered_with_one_sentence_and_the_form_as_it_was() -> None:
    reply = Client().post("/load/start/", {"users": "many", "rate": "5", "title": "Kept", "backend": ["a"]})
    assert reply.status_code == 422
    page = reply.content.decode()
    assert 'id="problem-users">Users: a whole number from 0 to 1,000.<' in page
    for kept in ('value="Kept"', 'value="many"', 'name="rate" value="5"'):
        assert kept in page
    assert not LoadRun.objects.exists()


def test_the_drawer_answers_a_wrong_wish_with_its_controls_and_a_sentence() -> None:
    reply = Client().post("/load/start/", {"users": "many", "backend": ["a"], "drawer": "on"})
    assert reply.status_code == 422
    assert reply.content.decode().count('id="load-controls"') == 1
    assert "Users: a whole number" in reply.content.decode()


GOOD = {"backend": ["a"], "duration": "5"}


@pytest.mark.parametrize(
    ("field", "wish", "sentence"),
    [
        ("backend", {"backend": []}, "needs 1 to 8 backends"),
        ("backend", {"backend": ["nobody"]}, "There is no backend &#x27;nobody&#x27;"),
        ("users", {"users": "1.5"}, "a whole number"),
        ("users", {"users": "600", "backend": ["a", "b"]}, "At most 500 on each of 2 backends"),
        ("rate", {"arrival": "poisson", "rate": "nan"}, "from 0.01 to 500"),
        ("cv", {"arrival": "gamma", "cv": ""}, "from 0.05 to 20"),
        ("duration", {"duration": "1e9"}, "from 0.5 to 3,600"),
        ("think", {"think": "-1"}, "from 0 to 600"),
        ("slo", {"slo": "speed:1"}, "There is no SLO"),
        ("slo", {"slo": "fast"}, "or a name, such as voice; the help on load tests has them all."),
        ("slo", {"kind": "search"}, "A search needs an SLO"),
        ("first", {"kind": "search", "first": "0"}, "from 1 to 1,000"),
        ("up_to", {"kind": "search", "first": "9", "up_to": "8"}, "no fewer users"),
        ("step", {"kind": "sweep", "step": "soon"}, "from 0.5 to 3,600"),
        ("loads", {"kind": "sweep", "loads": "1, two"}, "such as 1, 2, 4, 8"),
        ("loads", {"kind": "sweep", "loads": "0.5"}, "numbers of users"),
        ("loads", {"kind": "sweep", "arrival": "constant", "loads": "501"}, "numbers of requests per second"),
        ("loads", {"kind": "sweep", "loads": "2 2"}, "each of them once"),
        ("title", {"title": "x" * 201}, "at most 200"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(field: str, wish: dict[str, Any], sentence: str) -> None:
    Backend.objects.create(slug="a", label="A", model="m", base_url="http://127.0.0.1:9/v1")
    reply = Client().post("/load/start/", GOOD | wish)
    assert reply.status_code == 422
    page = reply.content.decode()
    said = re.search(rf'id="problem-{field}">([^<]+)<', page)
    assert said
    assert sentence in said[1]
    assert len(said[1]) < 200, "one sentence"
    assert page.count("autofocus") == 1
    assert not LoadRun.objects.exists()


def test_fields_of_another_kind_are_kept_and_not_judged() -> None:
    reply = Client().post("/load/start/", GOOD | {"kind": "search", "loads": "many", "slo": ""})
    assert 'name="loads" value="many"' in reply.content.decode()
    assert "problem-loads" not in reply.content.decode()


def test_a_run_is_started_again_with_what_it_was_asked() -> None:
    for kind, more in (("search", {"up_to": 32}), ("sweep", {"loads": [1, 2]}), ("ab", {})):
        run = finished(10)
        run.plan |= {"kind": kind, "mix": "fixed:20/5", "duration_s": 7.0, **more}
        run.backends = ["a", "a#2"]
        run.save()
        page = Client().get(f"/load/?again={run.id}").content.decode()
        assert f'name="kind" value="{kind}" checked' in page
        assert '<option value="fixed:20/5" selected>' in page
        if kind == "ab":
            assert 'name="duration" value="7"' in page
        else:
            assert 'name="step" value="7"' in page
    assert 'name="up_to" value="64"' in page, "what it did not ask has its first value"


def test_the_help_says_what_no_run_exceeds() -> None:
    page = Client().get("/help/load/").content.decode()
    assert "No run has more than 1,000 users or 500 requests per second" in page
    assert "asks more than 200,000 times, or lasts longer than 60 minutes. A search and a sweep are several" in page
