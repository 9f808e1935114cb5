"""Every refusal in words: what happened, on whose side, what to do, and nothing that a room must not see."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from webapp.backends import faults
from webapp.core.errors import StreamError

NOW = datetime(2026, 11, 22, 20, 0, 0, tzinfo=UTC)
URL = "http://127.0.0.1:8080/v1/chat/completions"


def of_status(status: int, body: bytes = b"", **headers: str) -> StreamError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return faults.of_status(status, named, body, URL, NOW)


@pytest.mark.parametrize(
    ("status", "kind", "permanent"),
    [
        (201, "http_status", False),
        (204, "http_status", False),
        (301, "redirected", True),
        (308, "redirected", True),
        (400, "bad_request", True),
        (401, "auth", True),
        (403, "auth", True),
        (404, "not_found", True),
        (405, "http_status", False),
        (413, "bad_request", True),
        (422, "bad_request", True),
        (429, "rate_limited", False),
        (500, "http_status", False),
        (503, "http_status", False),
        (529, "http_status", False),
    ],
)
def test_each_status_is_a_kind_with_its_number_in_a_sentence(status: int, kind: str, permanent: bool):
    error = of_status(status)
    assert (error.kind, error.permanent, error.status) == (kind, permanent, status)
    assert str(status) in error.message
    assert error.message.startswith("The backend")
    assert error.message.endswith(".")


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("1.5", 1.5),
        ("Sun, 22 Nov 2026 20:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 20:00:30 -0000", 30),
        ("Sun, 22 Nov 2026 19:00:00 GMT", None),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("999999999999999999999", None),
        ("in a while", None),
        ("Sun, 99 Nov 2026 20:00:30 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_absent_where_it_is_absurd(value: str, wait_s: float | None):
    error = of_status(429, retry_after=value)
    assert error.retry_after_s == wait_s
    assert (f"in {wait_s:.0f} s" if wait_s is not None else "in a minute") in error.message


def test_the_servers_own_words_are_quoted():
    assert (
        "“maximum context length is 8192”"
        in of_status(400, orjson.dumps({"error": {"message": "maximum context length is 8192."}})).message
    )
    assert (
        "“too long; no number”"
        in of_status(422, orjson.dumps({"detail": [{"msg": "too long"}, {"msg": "no number"}]})).message
    )
    assert "“Internal Server Error”" in of_status(500, b"Internal Server Error").message


def test_an_html_page_is_named_not_quoted():
    message = of_status(502, b"\n <html><script>alert(1)</script>").message
    assert message == "The backend failed (502), with an HTML page; try again, or look at its log."


def test_quotes_are_one_printable_line_of_bounded_length():
    for body in (b"a\nb\r\n\x00\x1b[31mc\xe2\x80\xae" + b"x" * 5000, orjson.dumps({"error": "y\n\x07\u202e" * 2000})):
        message = of_status(500, body).message
        assert message.isprintable()
        assert len(message) < faults.SNIPPET_CHARS + 100


def test_a_body_that_is_no_text_does_no_harm():
    assert of_status(500, b"\xff\xfe\x00").message.isprintable()
    assert of_status(500, b"[" * 10_000).message.isprintable()


def test_a_404_without_words_names_the_address():
    assert of_status(404).message.endswith(f"(404) at {URL}.")


def test_an_answer_that_is_no_stream_says_what_it_is():
    error = faults.not_a_stream("application/json; charset=utf-8", b'{"error": "overloaded"}')
    assert "(application/json): “overloaded”" in error.message
    assert "(no content type)" in faults.not_a_stream("", b"").message


def test_an_unknown_exception_is_named_without_its_text():
    error = faults.of_exception(RuntimeError("sk-secret"), "host")
    assert error.kind == "protocol"
    assert "RuntimeError" in error.message
    assert "sk-secret" not in error.message
