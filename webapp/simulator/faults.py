"""Ways in which a real server goes wrong or differs, to be asked for by name. Pure: a table.

A request asks for one with a suffix of the model (`wse3-gpt-oss-120b+stall`) or the header `X-Fault`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Ending(StrEnum):
    """What a stream does after its last chunk."""

    PROPER = "proper"  # finish_reason, usage if asked for, [DONE]
    NO_DONE = "no-done"  # all but [DONE]
    SILENCE = "silence"  # stays open and says nothing
    RESET = "reset"  # the TCP connection is reset
    EARLY = "early"  # the response ends with neither finish_reason nor [DONE]
    ERROR = "error"  # an error object, as servers send once the status is out
    GARBAGE = "garbage"  # half a JSON object, then [DONE]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way. `status` other than 200 refuses the request before anything is generated."""

    name: str
    summary: str
    status: int = 200
    first_token_delay_ms: int = 0
    after_tokens: int | None = None  # the answer is cut here; None leaves it whole
    ending: Ending = Ending.PROPER


NO_FAULT = Fault("", "nothing")

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for fault in (
            Fault("slow-first", "the first token comes 10 s late", first_token_delay_ms=10_000),
            Fault("stall", "silence after 20 tokens", after_tokens=20, ending=Ending.SILENCE),
            Fault("silent", "headers, then nothing at all", after_tokens=0, ending=Ending.SILENCE),
            Fault("reset", "connection reset after 20 tokens", after_tokens=20, ending=Ending.RESET),
            Fault("truncate", "an early end after 20 tokens", after_tokens=20, ending=Ending.EARLY),
            Fault("error", "an error object after 20 tokens", after_tokens=20, ending=Ending.ERROR),
            Fault("garbage", "malformed JSON after 20 tokens", after_tokens=20, ending=Ending.GARBAGE),
            Fault("no-done", "everything but the last line", ending=Ending.NO_DONE),
            Fault("429", "rate limited, retry after 2 s", status=429),
            Fault("500", "a server error with an HTML page", status=500),
            Fault("401", "the key is not accepted", status=401),
        )
    }
)
