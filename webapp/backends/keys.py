"""Where API keys come from. A key is named in the database (`env:NAME` or `file:PATH`) and read when it is used.

It is never stored, logged, exported or sent to a browser; nothing here puts it into an error's text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from webapp.core.errors import StreamError

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_reference(reference: str) -> None:
    """Raise ValueError, in one sentence, where `reference` is not "", `env:NAME` or `file:PATH`."""
    scheme, _, rest = reference.partition(":")
    if not reference or (scheme == "file" and rest) or (scheme == "env" and _ENV_NAME.match(rest)):
        return
    raise ValueError("A key is given by reference: env:NAME (an environment variable) or file:PATH (a file).")


def resolve(reference: str) -> str:
    """Return the key that `reference` names, "" where there is none.

    Raises StreamError("auth") where the variable or the file does not exist: the request would only be refused.
    """
    scheme, _, rest = reference.partition(":")
    if not reference:
        return ""
    if scheme == "env":
        if key := os.environ.get(rest, "").strip():
            return key
        raise _missing(f"the environment variable {rest} is not set")
    try:
        key = Path(rest).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise _missing("its key file cannot be read") from None
    if not key:
        raise _missing("its key file is empty")
    return key


def _missing(what: str) -> StreamError:
    return StreamError("auth", f"No key for this backend on our side: {what}.", permanent=True)


def redact(text: str, reference: str) -> str:
    """Return `text` without the key that `reference` names."""
    try:
        key = resolve(reference)
    except StreamError:
        return text
    return text.replace(key, "(key)") if key else text
