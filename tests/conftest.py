"""What every test may use: the product as live processes, and a database that threads of the product can share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection
from hypothesis import settings as hypothesis_settings

from tests.live import LiveApp, live
from webapp.services.writer import writer

# No deadline: how long an example takes on a busy machine says nothing about the product.
hypothesis_settings.register_profile("splitsecond", deadline=None)
hypothesis_settings.load_profile("splitsecond")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rows: touches rows in the database; runs on PostgreSQL too")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "rows" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.rows)


@pytest.fixture(scope="session")
def live_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    """The web app and the simulator as processes, shared by the whole session: leave it as you found it."""
    with live(tmp_path_factory.mktemp("live")) as app:
        yield app


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep SQLite's test database in a file of this session: the writer's thread has a connection of its own."""
    database = settings.DATABASES["default"]
    if connection.vendor == "sqlite":
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture
def rows(transactional_db: None) -> Iterator[None]:
    """A database that other threads see too, empty before and after; what the writer still holds is written first."""
    yield
    writer.submit(lambda: connection.close())  # the connection of the writer's thread must not outlive the tables
    assert writer.flush(60), "the writer did not finish"
