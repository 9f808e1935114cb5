"""What is saved as a backend, what is not, and which of them a seed may touch."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command

from webapp.models import Backend
from webapp.services import backends
from webapp.simulator.profile import load_all

pytestmark = pytest.mark.usefixtures("rows")


def backend(**fields: object) -> Backend:
    values = {"slug": "mine", "label": "Mine", "model": "m", "base_url": "http://127.0.0.1:9/v1", **fields}
    return Backend(**values)


def keys() -> str:
    return Backend.objects.get(slug="mine").key_ref


GOOD_URLS = {
    "http://127.0.0.1:8080/v1/": "http://127.0.0.1:8080/v1",
    "  https://api.example.com/v1  ": "https://api.example.com/v1",
    "http://[::1]:8080": "http://[::1]:8080",
    "https://example.com/a/b/": "https://example.com/a/b",
}


@pytest.mark.parametrize(("given", "kept"), GOOD_URLS.items())
def test_a_url_is_kept_without_its_trailing_slash(given: str, kept: str) -> None:
    assert backends.save(backend(base_url=given)).base_url == kept


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("http://a.example/v1", "http://b.example/v1"),
        ("http://a.example/v1", "https://a.example/v1"),
        ("http://a.example/v1", "http://a.example:8080/v1"),
        ("http://a.example/v1", "http://a.example.evil.example/v1"),
    ],
)
def test_a_key_stays_with_scheme_host_and_port(before: str, after: str) -> None:
    row = backends.save(backend(base_url=before, key_ref="env:KEY"))
    row.base_url = after
    backends.save(row)
    assert keys() == ""
    row.key_ref = "env:KEY"
    backends.save(row)
    assert keys() == "env:KEY"


def test_a_key_that_is_given_anew_with_the_new_address_is_kept() -> None:
    row = backends.save(backend(key_ref="env:KEY"))
    row.base_url, row.key_ref = "http://127.0.0.2:9/v1", "env:OTHER_KEY"
    backends.save(row)
    assert keys() == "env:OTHER_KEY"


def test_another_path_on_the_same_host_keeps_the_key() -> None:
    row = backends.save(backend(key_ref="env:KEY"))
    row.base_url = "http://127.0.0.1:9/v2"
    backends.save(row)
    assert keys() == "env:KEY"


@pytest.mark.parametrize("reference", ["sk-abc", "env:", "env:A B", "file:", "http:x", "ENV:KEY"])
def test_a_key_itself_is_never_saved(reference: str) -> None:
    with pytest.raises(ValidationError) as error:
        backends.save(backend(key_ref=reference))
    assert list(error.value.message_dict) == ["key_ref"]
    assert not Backend.objects.exists()


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as error:
        backends.save(backend(kind="telnet", key_ref="sk-abc", base_url="ftp://x"))
    assert set(error.value.message_dict) == {"kind", "key_ref", "base_url"}


def test_only_a_simulated_backend_may_have_no_url() -> None:
    with pytest.raises(ValidationError):
        backends.save(backend(base_url=""))
    backends.save(backend(base_url="", badge="SIMULATED"))
    assert Backend.objects.count() == 1


def test_seeding_makes_one_backend_for_each_profile_and_the_second_time_none() -> None:
    assert backends.seed() == len(load_all())
    assert backends.seed() == 0
    rows = list(Backend.objects.all())
    assert {row.badge for row in rows} == {"SIMULATED"}
    assert all(row.source and row.base_url == "" for row in rows)
    assert tuple(row.slug for row in rows[:4]) == backends.FIRST_LANES
    for row in rows:
        row.full_clean()


def test_seeding_refreshes_what_it_made_and_leaves_yours_alone() -> None:
    backends.seed()
    Backend.objects.filter(slug="oci-llama-70b").update(label="stale")
    Backend.objects.filter(slug="gaudi3x8-llama-70b").update(base_url="http://127.0.0.1:9/v1", label="mine now")
    backends.save(backend())
    assert backends.seed() == 0
    assert Backend.objects.get(slug="oci-llama-70b").label != "stale"
    assert Backend.objects.get(slug="gaudi3x8-llama-70b").label == "mine now"
    assert Backend.objects.filter(slug="mine").exists()


def test_a_seeded_backend_that_was_removed_comes_back_with_the_next_seed() -> None:
    backends.seed()
    assert backends.remove("oci-llama-70b")
    assert not backends.remove("oci-llama-70b")
    assert backends.seed() == 1


def said_by(*arguments: str) -> str:
    """Return what the command says."""
    out = StringIO()
    call_command("backend", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_adds_changes_lists_and_removes_a_backend() -> None:
    address = ("--url", "http://127.0.0.1:9/v1/")
    assert said_by("add", "mine", *address, "--model", "one") == "mine added.\n"
    assert said_by("add", "mine", *address, "--model", "two", "--label", "Mine") == "mine changed.\n"
    (row,) = json.loads(said_by("list", "--json"))
    assert (row["slug"], row["label"], row["model"], row["url"]) == ("mine", "Mine", "two", "http://127.0.0.1:9/v1")
    assert "Mine" in said_by("list")
    assert said_by("remove", "mine") == "mine removed.\n"
    assert "No backends yet" in said_by("list")


def test_the_command_refuses_in_one_sentence_and_changes_nothing() -> None:
    backends.seed()
    seeded = Backend.objects.get(slug="oci-llama-70b")
    for arguments, sentence in (
        (("remove", "nobody"), "There is no backend 'nobody'"),
        (("add", "oci-llama-70b", "--url", "http://127.0.0.1:9/v1", "--model", "m"), "built-in simulator"),
        (("add", "mine", "--url", "no address", "--model", "m"), "^--url: .*http"),
        (("add", "mine", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--label", "x" * 81), "^--label: .* 80 "),
    ):
        with pytest.raises(CommandError, match=sentence):
            said_by(*arguments)
    assert not Backend.objects.filter(slug="mine").exists()
    assert Backend.objects.get(slug="oci-llama-70b").base_url == seeded.base_url == ""
