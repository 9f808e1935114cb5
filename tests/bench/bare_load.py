"""A bare load generator: gevent sockets, a split and a JSON parser, and nothing else. It checks and keeps nothing.

    python -m tests.bench.bare_load PORT MODEL USERS SECONDS

prints `tokens N cpu S`: what was read, and the CPU time that it took.
"""

from __future__ import annotations

import resource
import sys
import time

import gevent
import gevent.socket
import orjson

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "


def user(port: int, body: bytes, until_s: float, counts: list[int]) -> None:
    request = REQUEST + b"%d\r\n\r\n" % len(body) + body
    sock = gevent.socket.create_connection(("127.0.0.1", port))
    while time.monotonic() < until_s:
        sock.sendall(request)
        rest = b""
        while b"[DONE]" not in rest[-64:]:
            data = sock.recv(65536)
            time.monotonic_ns()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                start = event.find(b"data: {")
                if start < 0:
                    if b"[DONE]" in event:
                        rest = b"[DONE]"
                    continue
                choices = orjson.loads(event[start + 6 :])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    counts[0] += 1


def main() -> None:
    port, model, users, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    body = orjson.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]})
    counts, until_s = [0], time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF)
    gevent.joinall([gevent.spawn(user, port, body, until_s, counts) for _ in range(users)], raise_error=True)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"tokens {counts[0]} cpu {cpu_s:.3f}")


if __name__ == "__main__":
    main()
