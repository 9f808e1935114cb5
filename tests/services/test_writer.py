"""The single writer: order, patience with a database that is away, and rows that cannot be written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import IntegrityError, OperationalError, connection, connections

from tests.hostwatch import Patience
from webapp.models import Backend
from webapp.services import writer as module
from webapp.services.writer import Writer

pytestmark = pytest.mark.usefixtures("rows")


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    """A writer of this test's own that does not wait long before it tries again."""
    monkeypatch.setattr(module, "RETRY_S", (0.01,))
    own = Writer()
    yield own
    own.submit(lambda: connection.close())
    assert own.flush(60)


def save(slug: str) -> Callable[[], None]:
    return lambda: Backend(slug=slug, label=slug, model="m", base_url="http://127.0.0.1:1/v1").save(force_insert=True)


def test_rows_are_written_in_the_order_in_which_they_came_by_one_other_thread(writer: Writer) -> None:
    seen: list[tuple[int, str]] = []
    for number in range(200):
        writer.submit(lambda number=number: seen.append((number, threading.current_thread().name)))
    assert writer.flush(60)
    assert seen == [(number, "writer") for number in range(200)]


def test_submissions_of_many_threads_are_all_written_each_threads_own_in_order(writer: Writer) -> None:
    seen: list[tuple[int, int]] = []

    def submit(thread: int) -> None:
        for number in range(100):
            writer.submit(lambda number=number: seen.append((thread, number)))

    threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(60)
    assert len(seen) == 800
    assert all([n for t, n in seen if t == thread] == list(range(100)) for thread in range(8))


def test_a_locked_database_delays_rows_and_loses_none(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL locks rows, not the database")
    impatient = dict(connection.settings_dict["OPTIONS"], timeout=0.01)
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", impatient)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        for number in range(5):
            writer.submit(save(f"row-{number}"))
        assert not writer.flush(0.2)
        patience = Patience(60)
        while not writer.delayed:  # until its thread has met the lock
            assert patience.left
            time.sleep(0.001)
        assert writer.backlog >= 4
        cursor.execute("COMMIT")
    assert writer.flush(60)
    assert not writer.delayed
    assert writer.lost == 0
    assert list(Backend.objects.values_list("slug", flat=True)) == [f"row-{number}" for number in range(5)]


def test_a_row_is_tried_again_until_it_is_written(writer: Writer) -> None:
    attempts: list[int] = []

    def write() -> None:
        attempts.append(1)
        if len(attempts) < 4:
            raise OperationalError("the server has gone away")

    writer.submit(write)
    assert writer.flush(60)
    assert len(attempts) == 4
    assert not writer.delayed


def test_a_row_that_cannot_be_written_is_counted_and_stops_none_behind_it(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    writer.submit(save("one"))
    writer.submit(save("one"))
    writer.submit(save("two"))
    assert writer.flush(60)
    assert writer.lost == 1
    assert {"one", "two"} == set(Backend.objects.values_list("slug", flat=True))
    assert any(record.exc_info and record.exc_info[0] is IntegrityError for record in caplog.records)


def test_beyond_its_limit_the_oldest_rows_give_way_and_are_counted(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    go, seen = threading.Event(), list[int]()
    writer.submit(lambda: go.wait(60) and None)
    while writer.backlog:
        pass  # until its thread has taken the first
    for number in range(5):
        writer.submit(lambda number=number: seen.append(number))
    go.set()
    assert writer.flush(60)
    assert seen == [2, 3, 4]
    assert writer.lost == 2


async def test_flushed_says_within_its_time_whether_all_is_written(writer: Writer) -> None:
    go = threading.Event()
    writer.submit(lambda: go.wait(60) and None)
    assert not await writer.flushed(0.05)
    go.set()
    assert await writer.flushed(60)


def test_a_writer_that_was_given_nothing_has_nothing_to_flush() -> None:
    assert Writer().flush(0)
