"""The gate and the inbox by themselves."""

import asyncio

import pytest

from webapp.server.flow import Gate, Inbox


async def test_a_closed_gate_keeps_every_sender_until_the_transport_resumes():
    gate = Gate()
    gate.pauseProducing()
    senders = [asyncio.create_task(gate.passed()) for _ in range(3)]
    done, _ = await asyncio.wait(senders, timeout=0.01)
    assert (done, gate.closed) == (set(), True)
    gate.resumeProducing()
    await asyncio.wait_for(asyncio.gather(*senders), 60)
    assert not gate.closed


async def test_a_lost_connection_lets_senders_go():
    gate = Gate()
    gate.pauseProducing()
    sender = asyncio.create_task(gate.passed())
    await asyncio.sleep(0)
    gate.stopProducing()
    await asyncio.wait_for(sender, 60)


async def test_a_sender_whose_reader_is_always_ready_still_gives_up_the_loop():
    gate, turns = Gate(), []

    async def neighbour():
        turns.append("neighbour")

    other = asyncio.create_task(neighbour())
    for _ in range(64):
        await gate.passed()
    await other
    assert turns == ["neighbour"]
    assert other.done()


@pytest.mark.parametrize(
    ("messages", "crowded"),
    [(3, False), (4, True)],
)
async def test_an_inbox_is_crowded_from_its_limit_of_messages_on(messages, crowded):
    inbox = Inbox(max_messages=4, max_bytes=1000)
    for _ in range(messages):
        inbox.put_nowait({"type": "websocket.receive", "text": ""})
    assert inbox.crowded is crowded


async def test_an_inbox_is_crowded_from_its_limit_of_bytes_on():
    inbox = Inbox(max_messages=100, max_bytes=10)
    inbox.put_nowait({"type": "websocket.receive", "text": "123456789"})
    assert not inbox.crowded
    inbox.put_nowait({"type": "websocket.receive", "bytes": b"1"})
    assert inbox.crowded


async def test_room_is_announced_once_when_half_of_it_has_been_read():
    inbox, room = Inbox(max_messages=4, max_bytes=1000), []
    inbox.on_room = lambda: room.append(inbox.qsize())
    for _ in range(6):
        inbox.put_nowait({"type": "websocket.receive", "text": "x"})
    sizes = []
    for _ in range(6):
        await inbox.get()
        await asyncio.sleep(0)
        sizes.append((inbox.qsize(), len(room)))
    assert sizes == [(5, 0), (4, 0), (3, 0), (2, 1), (1, 1), (0, 1)]
