"""Typed readers of environment variables. A wrong value stops the start with the variable's name and what it wants."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dj_database_url
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


def env_database(name: str, default: str) -> Any:
    """Return the database that a URL names, as Django's settings want it."""
    value = os.environ.get(name) or default
    try:
        return dj_database_url.parse(value, conn_max_age=0)
    except ValueError:  # not shown: it may hold a password
        raise ImproperlyConfigured(
            f"{name} is no database's URL; it wants postgres://USER:PASSWORD@HOST:PORT/NAME, or nothing for SQLite."
        ) from None


def env_time_zone(name: str, default: str) -> str:
    value = os.environ.get(name) or default
    try:
        if value != default:  # a machine without time zones knows its default all the same
            ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ImproperlyConfigured(f"{name} is {value!r}; it wants a time zone such as Europe/Berlin.") from None
    return value


def kept_secret(path: Path) -> str:
    """Return the secret kept in `path`, made there (readable by its owner only) at the first start."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ImproperlyConfigured(
            f"VAR_DIR is {str(path.parent)!r}; it wants a folder whose {path.name} can be read ({error.strerror})."
        ) from None
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
