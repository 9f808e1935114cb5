"""Record what a real server sends, for tests/data: `python -m tests.upstreams.capture PORT NAME CASE…`.

Each case becomes a file in tests/data and an entry in captures.json; tests/data/README.md says what they hold and how
the servers were started.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

DATA = Path(__file__).parent.parent / "data"
USAGE = {"include_usage": True}
FLAGS = 'root ::= "Grüße 世界 🏁 👩\u200d🚀 " [a-z]{5}'
THOUGHT = 'root ::= [a-z]{6} " " [a-z]{6} "</think>" [A-Z]{6} " " [A-Z]{6}'

# What is added to {"model": "tiny-llama", "messages": one of the user}; a "_" names what is not a field.
CASES: dict[str, dict[str, Any]] = {
    "stream": {"stream": True, "max_tokens": 12, "seed": 4},
    "stream-usage": {"stream": True, "max_tokens": 40, "seed": 3, "stream_options": USAGE},
    "stream-http10": {"stream": True, "max_tokens": 4, "seed": 4, "_version": "HTTP/1.0"},
    "one-token": {"stream": True, "max_tokens": 1, "seed": 3, "stream_options": USAGE},
    "no-token": {"stream": True, "max_tokens": 0, "stream_options": USAGE},
    "stop-word": {"stream": True, "max_tokens": 300, "seed": 5, "stop": ["e"], "stream_options": USAGE},
    "whole": {"max_tokens": 12, "seed": 3},
    "unknown-model": {"model": "no-such-model", "stream": True, "max_tokens": 4},
    "unknown-field": {"stream": True, "max_tokens": 4, "ignore_eos": True, "no_such_field": 1},
    "bad-field": {"stream": True, "temperature": "hot"},
    "bad-json": {"_raw": '{"model": '},
    "wrong-path": {"stream": True, "_path": "/v1/chat/completion"},
    "too-long": {"stream": True, "max_tokens": 4, "_repeat": 1000},
    # The rest uses extensions of llama.cpp's server.
    "unicode": {"stream": True, "max_tokens": 60, "seed": 3, "grammar": FLAGS, "stream_options": USAGE},
    "reasoning": {"stream": True, "max_tokens": 80, "seed": 3, "grammar": THOUGHT, "stream_options": USAGE},
    "timings-each": {"stream": True, "max_tokens": 4, "timings_per_token": True, "stream_options": USAGE},
    "progress": {"stream": True, "max_tokens": 4, "return_progress": True, "cache_prompt": False, "_repeat": 60},
    "two-choices": {"stream": True, "max_tokens": 3, "seed": 3, "n": 2},
}


def request_of(case: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes to send and their description."""
    content = "The prompt streams from several backends. " * case.get("_repeat", 0) or "Say a word."
    fields = {name: value for name, value in case.items() if not name.startswith("_")}
    body = {"model": "tiny-llama", "messages": [{"role": "user", "content": content}], **fields}
    data = case.get("_raw", json.dumps(body)).encode()
    path = case.get("_path", "/v1/chat/completions")
    head = [
        f"POST {path} {case.get('_version', 'HTTP/1.1')}",
        "Host: 127.0.0.1",
        "Accept-Encoding: identity",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + data, {"path": path, **case}


def ended(head: bytes, body: bytes) -> str:
    """Return by what the body has ended, or "" if it has not."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        return "last chunk" if body.endswith(b"0\r\n\r\n") else ""
    length = fields.get(b"content-length")
    return "content length" if length and len(body) >= int(length) else ""


def chunks_of(head: bytes, body: bytes) -> list[bytes]:
    if b"chunked" not in head.lower():
        return [body]
    chunks = []
    while body:
        size, _, body = body.partition(b"\r\n")
        chunks.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return chunks[:-1]


def capture(port: int, name: str, case: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Make one request, save the body, and return the file's name and its entry."""
    sent, described = request_of(case)
    received, reads, end = b"", [], ""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(sent)
        start_ns = perf_counter_ns()
        while not end:
            data = sock.recv(65536)
            reads.append([(perf_counter_ns() - start_ns) // 1000, len(data)])
            received += data
            head, blank, body = received.partition(b"\r\n\r\n")
            end = "connection closed" if not data else ended(head, body) if blank else ""
    chunks = chunks_of(head, body)
    file = DATA / f"{name}.{'sse' if b'event-stream' in head.lower() else 'json'}"
    file.write_bytes(b"".join(chunks))
    sizes = [len(chunk) for chunk in chunks]
    entry = {
        "request": described,
        "head": head.decode().split("\r\n"),
        "chunk_bytes": sizes,
        "reads": reads,
        "end": end,
    }
    return file.name, entry


def main(port: str, name: str, *cases: str) -> None:
    index = DATA / "captures.json"
    entries = json.loads(index.read_text("utf-8")) if index.exists() else {}
    for case in cases:
        file, entry = capture(int(port), f"{name}-{case}", CASES[case])
        entries[file] = entry
        print(file, entry["head"][0], entry["end"])
    lines = [f"{json.dumps(file)}: {json.dumps(entries[file], ensure_ascii=False)}" for file in sorted(entries)]
    index.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
