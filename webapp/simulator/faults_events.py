"""Events that some faults put between the honest ones. Pure bytes; every one is meant."""

import orjson


def _event(*choices: object, **rest: object) -> bytes:
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": choices, **rest}) + b"\n\n"


def _delta(index: int = 0, **delta: object) -> dict[str, object]:
    return {"index": index, "delta": delta, "finish_reason": None}


GARBAGE = b'data: {"choices":[{"index":0,"delta":{"content":"\n\n'
BROKEN = b'data: {"choices":[{"index":0,"delta":{"content":\n\n'
# A byte order mark, a comment, an event number, a reconnection time, a field that nobody knows, one without a colon.
ODD_FIELDS = b"\xef\xbb\xbf: hello\nid: 1\nretry: 3000\nflavour: odd\ndata\n\n"
JOINED = _event(_delta(content=" one"))[:-1] + _event(_delta(content=" two"))
MANY_SCRIPTS = _event(_delta(content=" größer 漢字 ελληνικά 🙂👩‍🚀 "))
INVALID = (
    b'data: {"choices":[{"index":0,"delta":{"content":" \xff\xc3( "}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":" \\u2028\\u2029\\u0085\\u0000 "}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":" \xe2\x80\xa8\xe2\x80\xa9\xc2\x85 "}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":" \\ud800 "}}]}\n\n'
)
LONG = _event(_delta(content="long " * 250_000))
FLOOD = _event(_delta(content="flood " * 10_000))
EMPTY = b"".join(
    (
        _event(_delta(role="assistant", content="")),
        _event(_delta()),
        _event(_delta(content="")),
        _event(_delta(content=None)),
        _event(usage={"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}),
    )
)
_CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
OTHER_CHOICES = b"".join(
    (
        _event(_delta(1, content="another answer")),
        _event(_delta(0, content=""), _delta(1, content=" altogether")),
        _event(_delta(tool_calls=[_CALL])),
    )
)
AFTER_DONE = _event(_delta(content="This comes after the end."))
HEARTBEAT = b": ping\n\n"
