"""A tiny ASGI application with one path per behaviour under test, and the process that serves it.

Run as `python -m tests.server.tiny_app --option value …`; the first line of stdout is the port.
"""

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from webapp import drain, push
from webapp.server import CannotListen, ServerLimits, StopTimes, serve

CHUNK = b"x" * 16 * 1024

counts: dict[str, int] = {}
endings: dict[str, str] = {}
whole: set[str] = set()  # answers whose end is on its way
ended_ns: dict[str, int] = {}
gates: dict[str, asyncio.Event] = {}

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Call the behaviour that the first part of the path names; the second part names the stream."""
    _, behaviour, *rest = scope["path"].split("/")
    await BEHAVIOURS[behaviour](scope, receive, send, rest[0] if rest else "")


async def answer(send: Send, value: Any, status: int = 200) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def state(scope: Any, receive: Receive, send: Send, name: str) -> None:
    files = temporary_files()
    await answer(
        send, {"rss": rss_bytes(), "counts": counts, "endings": endings, "ended_ns": ended_ns, "temporary_files": files}
    )


async def describe(scope: Any, receive: Receive, send: Send, name: str) -> None:
    headers = {key.decode(): value.decode() for key, value in scope["headers"]}
    options = socket_options(scope["client"])
    await answer(send, {"root_path": scope["root_path"], "client": scope["client"], "headers": headers, **options})


async def body_size(scope: Any, receive: Receive, send: Send, name: str) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    await answer(send, {"size": size})


async def until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


async def while_connected(receive: Receive, name: str, work: Awaitable[None]) -> None:
    """Run `work` until it ends or the client leaves; note how many chunks and how it ended."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(until_disconnect(receive))
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if name in whole:  # with the end of an answer ends what may be received, too
            await task
        endings[name] = "done" if task.done() else "client left"
    except asyncio.CancelledError:
        endings[name] = "cancelled"
        raise
    finally:
        ended_ns[name] = time.perf_counter_ns()
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)
        mark(name, endings[name])


async def flood(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Send 32 MiB in 16 KiB chunks, as fast as the server takes them."""
    await while_connected(receive, name, chunks(scope, send, name, 2048, 0))


async def paced(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Send 100 small numbered messages, one every 5 ms."""
    await while_connected(receive, name, chunks(scope, send, name, 100, 0.005))


async def endless(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Send a small message every 10 ms for ever; say goodbye when the server drains."""
    await while_connected(receive, name, chunks(scope, send, name, 10**9, 0.01))


async def chunks(scope: Any, send: Send, name: str, number: int, gap_s: float) -> None:
    over_http = scope["type"] == "http"
    if over_http:
        await send({"type": "http.response.start", "status": 200, "headers": []})
    else:
        await send({"type": "websocket.accept"})
    for index in range(number):
        payload = CHUNK if gap_s == 0 else b"%d\n" % index
        if over_http:
            await send({"type": "http.response.body", "body": payload, "more_body": True})
        else:
            await send({"type": "websocket.send", "bytes": payload})
        counts[name] = index + 1
        if gap_s:
            await asyncio.sleep(gap_s)
        if drain.draining() and name.startswith("polite"):
            if over_http:
                await send({"type": "http.response.body", "body": b"goodbye\n", "more_body": True})
            else:
                await send({"type": "websocket.send", "bytes": b"goodbye\n"})
            break
    if over_http:
        whole.add(name)
        await send({"type": "http.response.body", "body": b""})


async def pushed(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Push 2,048 numbered lines of 16 KiB, and send those that cannot be pushed; count what was pushed."""

    async def lines() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        counts[f"{name}-pushed"] = 0
        for index in range(2048):
            line = pushed_line(index)
            if push.of(scope)(line):
                counts[f"{name}-pushed"] += 1
            else:
                await send({"type": "http.response.body", "body": line, "more_body": True})
            counts[name] = index + 1
        whole.add(name)
        await send({"type": "http.response.body", "body": b""})
        assert not push.of(scope)(b"too late")

    await while_connected(receive, name, lines())


def pushed_line(index: int) -> bytes:
    return b"%d\n" % index + CHUNK


async def stubborn(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Stream without ever calling `receive`."""
    try:
        await chunks(scope, send, name, 10**9, 0.01)
    except asyncio.CancelledError:
        endings[name] = "cancelled"
        mark(name, "cancelled")
        raise


async def echo(scope: Any, receive: Receive, send: Send, name: str) -> None:
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            endings[name] = str(message["code"])
            return
        if message["type"] == "websocket.receive":
            counts[name] = counts.get(name, 0) + 1
            await send({"type": "websocket.send", "text": message.get("text") or repr(message["bytes"])})


async def slow_reader(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Accept, then read nothing until somebody asks for /release/<name>; then count what had been sent."""
    await send({"type": "websocket.accept"})
    await receive()
    gates[name] = asyncio.Event()
    await gates[name].wait()
    while (await receive())["type"] == "websocket.receive":
        counts[name] = counts.get(name, 0) + 1
    endings[name] = "left"


async def release(scope: Any, receive: Receive, send: Send, name: str) -> None:
    gates[name].set()
    await answer(send, {})


async def big_message(scope: Any, receive: Receive, send: Send, name: str) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "y" * 300_000})
    await until_disconnect(receive)


async def big_answer(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Answer with 8 MiB in one message."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8388608")]})
    await send({"type": "http.response.body", "body": bytes(8388608)})


async def mixed_sizes(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Send 200 messages of very different sizes, each one filled with its own number."""
    await send({"type": "websocket.accept"})
    for index in range(200):
        await send({"type": "websocket.send", "text": mixed_message(index)})
    await until_disconnect(receive)


def mixed_message(index: int) -> str:
    return f"{index:03d}" * (7 ** (index % 6))


async def close_with(scope: Any, receive: Receive, send: Send, name: str) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": int(name), "reason": "as asked"})
    await until_disconnect(receive)


async def undecided(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Neither accept nor reject."""
    await receive()
    await until_disconnect(receive)


async def reject(scope: Any, receive: Receive, send: Send, name: str) -> None:
    await send({"type": "websocket.close"})


async def hang(scope: Any, receive: Receive, send: Send, name: str) -> None:
    """Block the event loop soon after the answer has begun."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hanging", "more_body": True})
    while not drain.draining():
        await asyncio.sleep(0.01)
    time.sleep(30)


async def fail(scope: Any, receive: Receive, send: Send, name: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    elif name == "late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("on purpose")


async def return_early(scope: Any, receive: Receive, send: Send, name: str) -> None:
    await send({"type": "websocket.accept"})


BEHAVIOURS = {
    function.__name__: function
    for function in (
        state, describe, body_size, flood, paced, endless, pushed, stubborn, echo, slow_reader, release, big_message,
        big_answer, mixed_sizes, close_with, undecided, reject, hang, fail, return_early,
    )
}  # fmt: skip


def mark(name: str, text: str) -> None:
    """Leave a file behind: the proof that outlives the process."""
    if "MARKS" in os.environ:
        (Path(os.environ["MARKS"]) / name).write_text(text)


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def temporary_files() -> int:
    """Count this process's open files that lie on a disk and have been deleted: what `tempfile` makes."""
    links = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    return sum(link.endswith("(deleted)") for link in links)


def socket_options(client: list[Any]) -> dict[str, int]:
    """Return the options of this process's own socket for a client."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(entry))) as sock:
                if sock.getpeername() == tuple(client):
                    return {"nodelay": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)}
        except OSError:
            continue
    return {}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--writer", default="works")
    for kind in (ServerLimits, StopTimes):
        for field in dataclasses.fields(kind):
            parser.add_argument("--" + field.name, type=type(field.default), default=field.default)
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

    async def flush() -> None:
        await asyncio.sleep(0.05 if options["writer"] == "works" else 60)
        mark("flushed", "yes")

    drain.on_flush(flush)
    try:
        serve(
            application,
            port=options["port"],
            ready=lambda host, port: print(port, flush=True),
            limits=chosen(ServerLimits, options),
            stop_times=chosen(StopTimes, options),
        )
    except CannotListen as error:
        sys.exit(str(error))


def chosen(kind: Any, options: dict[str, Any]) -> Any:
    return kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})


if __name__ == "__main__":
    main()
