"""Which hosts and origins are this server's own, as pure decisions."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.origins import is_allowed_host, is_own_origin

OWN = ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "localhost.")
FOREIGN = (
    "", ":8000", "evil.example", "localhost.evil.example", "localhost:80@evil.example", "localhost@evil.example",
    "127.0.0.1:x", "[::2]:8000", "localhost/", "localhost evil.example", "localhost,evil.example", "127.1", "0x7f.1",
    "2130706433", "[::ffff:127.0.0.1]", "\x00localhost",
)  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_our_own_names_are_allowed_on_any_port(host: str) -> None:
    assert is_allowed_host(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_and_what_is_no_name_are_not(host: str) -> None:
    assert not is_allowed_host(host)


def test_an_origin_is_compared_with_scheme_and_port(settings: Any) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://demo.example"]
    assert is_own_origin("http://localhost:8000", "localhost:8000", "http")
    assert is_own_origin("", "localhost:8000", "http")
    assert is_own_origin("https://demo.example", "localhost:8000", "http")
    for origin in (
        "https://localhost:8000",
        "http://localhost",
        "http://localhost:80000",
        "null",
        "http://demo.example",
    ):
        assert not is_own_origin(origin, "localhost:8000", "http")
