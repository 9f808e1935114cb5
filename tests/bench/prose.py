"""The reference stream with words between the stamps, for measuring a page: real tokens are short and lines end.

    python -m tests.bench.prose

prints and serves what `tests.upstreams.reference` does, except that only every 17th token is a stamp and every 65th
ends a line. Four streams in step share the count: with a number of tokens that four divides, one of them would get all
the stamps, and another all the ends of lines.
"""

from __future__ import annotations

import itertools

from tests.upstreams import reference

STAMP_EVERY = 17
LINE_EVERY = 65
WORDS = ("the ", "page ", "shows ", "what ", "came ", "as ", "it ", "comes, ", "then ")


class Token:
    """Stands in for the reference stream's token, which it fills in with `%`: mostly a word, sometimes the time."""

    def __init__(self, stamp: bytes) -> None:
        self._stamp = stamp
        before, after = stamp.split(b"@%019d ")
        self._words = [before + word.encode() + after for word in WORDS]
        self._line = before + b"so.\\n" + after
        self._count = itertools.count(1)

    def __mod__(self, now_ns: int) -> bytes:
        count = next(self._count)
        if count % STAMP_EVERY == 0:
            return self._stamp % now_ns
        return self._line if count % LINE_EVERY == 1 else self._words[count % len(self._words)]


if __name__ == "__main__":
    reference.TOKEN = Token(reference.TOKEN)  # type: ignore[assignment]
    reference.main()
