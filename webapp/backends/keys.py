"""Where API keys come from. A key is named in the database (`env:NAME` or `file:PATH`) and read when it is used.

It is never stored, logged, exported or sent to a browser; nothing here puts it into an error's text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from webapp.core.errors import StreamError

# So much of a key tells something; shorter pieces (“sk-”) are public.
TELLING_CHARS = 6
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_reference(reference: str) -> None:
    """Raise ValueError, in one sentence, where `reference` is not "", `env:NAME` or `file:PATH`."""
    scheme, _, rest = reference.partition(":")
    if not reference or (scheme == "file" and rest) or (scheme == "env" and _ENV_NAME.match(rest)):
        return
    raise ValueError("A key is given by reference: env:NAME (an environment variable) or file:PATH (a file).")


def resolve(reference: str) -> str:
    """Return the key that `reference` names, "" where there is none.

    Raises StreamError("auth") where the variable or the file does not exist, or holds something that no header can
    carry: the request would only be refused.
    """
    scheme, _, rest = reference.partition(":")
    if not reference:
        return ""
    if scheme == "env":
        key, place = os.environ.get(rest, "").strip(), f"the environment variable {rest}"
        if not key:
            raise _missing(f"{place} is not set")
    else:
        key, place = _read(rest), "its key file"
        if not key:
            raise _missing(f"{place} is empty")
    if not (key.isascii() and key.isprintable()):
        raise _missing(f"{place} holds more than one line, or letters that no key has")
    return key


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise _missing("its key file cannot be read") from None


def _missing(what: str) -> StreamError:
    return StreamError("auth", f"No key for this backend on our side: {what}.", permanent=True)


def redact(text: str, reference: str) -> str:
    """Return `text` without the key that `reference` names, and without the beginning of it that a cut text ends in."""
    try:
        key = resolve(reference)
    except StreamError:
        return text
    for length in range(len(key), min(len(key), TELLING_CHARS) - 1, -1):
        text = text.replace(key[:length], "(key)") if length else text
    return text
