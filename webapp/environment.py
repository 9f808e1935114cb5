"""Typed readers of environment variables. A wrong value stops the start with the variable's name and what it wants."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def env_bool(name: str, default: bool) -> bool:
    value = (os.environ.get(name) or str(default)).strip().lower()
    if value not in _TRUE | _FALSE:
        raise ImproperlyConfigured(f"{name} is {value!r}; it wants 1 or 0.")
    return value in _TRUE


def env_port(name: str, default: int) -> int:
    value = (os.environ.get(name) or str(default)).strip()
    if not value.isdecimal() or not 0 <= int(value) <= 65535:
        raise ImproperlyConfigured(f"{name} is {value!r}; it wants a port number from 0 to 65535.")
    return int(value)


def env_list(name: str, default: tuple[str, ...] = ()) -> list[str]:
    value = os.environ.get(name, "")
    return [item.strip() for item in value.split(",") if item.strip()] or list(default)


def kept_secret(path: Path) -> str:
    """Return the secret kept in `path`, made there (readable by its owner only) at the first start."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        pass
    secret = secrets.token_urlsafe(48)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secret)
    except FileExistsError:
        return path.read_text(encoding="ascii")  # another process was first
    except OSError:
        return secret  # a read-only place: sessions end with this process, everything else works
    return secret
