"""The announcement that the process is about to end."""

import asyncio
import logging

import pytest

from webapp import drain


@pytest.fixture(autouse=True)
def fresh():
    drain.reset()
    yield
    drain.reset()


def test_callbacks_are_told_once_and_failures_stop_no_other(caplog):
    told = []

    def fails():
        raise RuntimeError

    drain.on_drain(lambda: told.append(drain.draining()))
    drain.on_drain(fails)
    drain.on_drain(lambda: told.append("last"))
    with caplog.at_level(logging.ERROR):
        drain.begin()
        drain.begin()
    assert told == [True, "last"]
    assert len(caplog.records) == 1


def test_a_forgotten_callback_is_not_told():
    told = []
    forget = drain.on_drain(lambda: told.append(1))
    forget()
    forget()
    drain.begin()
    assert told == []


def test_who_comes_late_is_told_at_once():
    told = []
    drain.begin()
    drain.on_drain(lambda: told.append(1))
    assert told == [1]


async def test_waiting_ends_when_draining_begins():
    waiter = asyncio.create_task(drain.wait())
    await asyncio.sleep(0)
    assert not waiter.done()
    drain.begin()
    await asyncio.wait_for(waiter, 60)
    await asyncio.wait_for(drain.wait(), 60)


async def test_every_writer_is_flushed_even_when_one_fails(caplog):
    flushed = []

    async def fails():
        raise OSError("disk full")

    async def works():
        flushed.append(1)

    drain.on_flush(fails)
    drain.on_flush(works)
    with caplog.at_level(logging.ERROR):
        await drain.flush()
    assert flushed == [1]
    assert "disk full" in caplog.text
