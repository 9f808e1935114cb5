"""Outcomes and errors: what counts as a failure of the server, and how each kind is counted."""

from __future__ import annotations

import pytest

from webapp.core.errors import Outcome, StreamError

KINDS = {
    Outcome.TIMEOUT: "connect_timeout dns_timeout first_byte_timeout first_event_timeout gap_timeout total_timeout",
    Outcome.TRUNCATED: "reset truncated",
    Outcome.ERROR: "refused dns tls unreachable auth not_found rate_limited http_status redirected not_a_stream "
    "encoding upstream_error protocol too_large bad_request",
}


@pytest.mark.parametrize(("outcome", "kind"), [(outcome, kind) for outcome in KINDS for kind in KINDS[outcome].split()])
def test_each_kind_of_error_is_one_outcome(outcome: Outcome, kind: str):
    assert StreamError(kind, "").outcome is outcome


def test_what_we_stopped_ourselves_is_no_failure_of_the_server():
    assert {outcome for outcome in Outcome if outcome.failed} == {Outcome.ERROR, Outcome.TIMEOUT, Outcome.TRUNCATED}


def test_an_error_says_its_sentence():
    error = StreamError("rate_limited", "Slow down.", retry_after_s=7, status=429)
    assert str(error) == error.message == "Slow down."
    assert not error.permanent


def test_a_message_that_was_redacted_is_redacted_in_a_log_too():
    error = StreamError("http_status", "The backend failed: “key abc”.")
    error.message = "The backend failed: “key (key)”."
    assert "abc" not in f"{error} {error!r} {error.args}"
