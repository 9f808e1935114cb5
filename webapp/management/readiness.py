"""The database made ready for a command, so that the first one on a fresh machine may be any of them."""

from __future__ import annotations

import sqlite3

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from webapp.services.backends import seed


def prepare_database(*, refresh: bool = False) -> int:
    """Migrate where a migration is missing, and make the simulator's backends then; return how many of them are new.

    With `refresh` they are brought up to date in any case; without, one that was removed stays removed.
    Raises CommandError.
    """
    try:
        settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
        executor = MigrationExecutor(connection)
        missing = bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
        if missing:
            call_command("migrate", verbosity=0)
        return seed() if missing or refresh else 0
    except (DatabaseError, sqlite3.Error, OSError) as error:
        raise CommandError(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    where, why = settings.DATABASES["default"]["NAME"], " ".join(str(error).split())
    if connection.vendor == "sqlite":
        return f"The database {where} cannot be written ({why}); make it writable, or set VAR_DIR to another folder."
    return f"The database {where} cannot be used ({why}); start it, or set DATABASE_URL to another."
