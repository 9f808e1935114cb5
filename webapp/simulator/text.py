"""Split text into pieces the size of tokens, and guess how many tokens a text has. Pure.

Not the tokenizer of any model: about four characters a piece in English, the space before a word kept
with it, as byte-pair tokenizers do. Joining the pieces gives the text back exactly.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from math import ceil

from webapp.core.tokens import CHARS_PER_TOKEN

_PIECE = re.compile(
    r" ?[a-zA-Z\u00c0-\u024f]{1,8}"  # a Latin word, or the next part of a long one
    r"| ?\d{1,3}"
    r"| ?[^\W\d_a-zA-Z\u00c0-\u024f]{1,2}"  # other scripts hold more in a character
    r"|\n+"
    r"| ?(?:[^\w\s]|_){1,3}"
    r"| +(?= )"
    r"|.",
    re.DOTALL,
)


def tokens_of(text: str) -> Iterator[str]:
    """Yield the pieces of a text, one by one."""
    return (found.group() for found in _PIECE.finditer(text))


@lru_cache(maxsize=256)
def split_tokens(text: str) -> tuple[str, ...]:
    """Return the pieces of a text that is used again and again, such as a prepared answer."""
    return tuple(tokens_of(text))


def estimate_tokens(chars: int) -> int:
    """Return the number of tokens of a prompt with so many characters, at least 1."""
    return max(1, ceil(chars / CHARS_PER_TOKEN))
