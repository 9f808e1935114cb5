"""Keys are named, found when they are used, and never seen in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from webapp.backends import keys
from webapp.core.errors import StreamError

KEY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize("reference", ["", "env:KEY", "env:_k2", "file:/run/key", "file:~/key"])
def test_a_reference_names_a_variable_or_a_file(reference: str):
    keys.check_reference(reference)


@pytest.mark.parametrize(
    "reference", [KEY, "env:", "env:2KEY", "env:A B", "env:A\n", "file:", "ENV:KEY", "vault:x", " "]
)
def test_anything_else_is_refused_a_bare_key_above_all(reference: str):
    with pytest.raises(ValueError, match="by reference") as caught:
        keys.check_reference(reference)
    assert KEY not in str(caught.value)


def test_a_key_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("KEY", f" {KEY}\n")
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert keys.resolve("env:KEY") == keys.resolve(f"file:{file}") == KEY
    monkeypatch.setenv("KEY", "another")
    assert keys.resolve("env:KEY") == "another"
    assert keys.resolve("") == ""


@pytest.mark.parametrize("content", ["", "  \n", "two\nlines", "two\r\nlines", "tab\tkey", "nul\x00", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_before_it_is_sent(tmp_path: Path, content: str):
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(StreamError, match="No key for this backend") as caught:
        keys.resolve(f"file:{file}")
    assert caught.value.kind == "auth"
    assert caught.value.permanent
    assert str(tmp_path) not in caught.value.message
    assert not content.strip() or content.strip() not in caught.value.message


def test_a_key_that_is_not_there_is_our_own_fault_and_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("KEY", raising=False)
    for reference in ("env:KEY", f"file:{tmp_path / 'none'}", f"file:{tmp_path}"):
        with pytest.raises(StreamError, match="on our side"):
            keys.resolve(reference)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StreamError, match="cannot be read"):
        keys.resolve(f"file:{file}")


def test_a_key_is_taken_out_of_a_text_wherever_it_stands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KEY", KEY)
    assert keys.redact(f"{KEY} and {KEY}!", "env:KEY") == "(key) and (key)!"
    assert keys.redact("nothing here", "env:KEY") == "nothing here"
    assert keys.redact(f"{KEY}", "") == KEY
    assert keys.redact("text", "env:NOT_SET_ANYWHERE") == "text"


@pytest.mark.parametrize("length", range(keys.TELLING_CHARS, len(KEY) + 1))
def test_the_beginning_of_a_key_at_the_cut_end_of_a_text_is_taken_out_too(monkeypatch: pytest.MonkeyPatch, length: int):
    monkeypatch.setenv("KEY", KEY)
    assert keys.redact(f"Wrong key “{KEY[:length]}”.", "env:KEY") == "Wrong key “(key)”."
