"""Ways in which a real server goes wrong or differs, to be asked for by name. Pure: a table.

A request asks for one with a suffix of the model (`wse3-gpt-oss-120b+stall`) or the header `X-Fault`. The names
`u4` to `u34` are the numbers of tests/upstreams, whose `expected` says what a turn against each must come to; a case
that no server can act out (u1 a closed port, u2 a name that does not resolve, u3 a certificate, u31 the client's own
clock) has no row here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from re import fullmatch
from types import MappingProxyType

from webapp.simulator import faults_events as event


class Ending(StrEnum):
    """What a stream does after its last chunk."""

    PROPER = "proper"  # finish_reason, usage if asked for, [DONE]
    NO_DONE = "no-done"  # all but [DONE]
    LINGER = "linger"  # all, then more data, and the connection stays open
    DEAF = "deaf"  # all, then more data without end, whatever the client says
    SILENCE = "silence"  # stays open and says nothing
    HEARTBEAT = "heartbeat"  # stays open, a comment every second
    FLOOD = "flood"  # text without end, as fast as it is read
    RESET = "reset"  # the TCP connection is reset
    EARLY = "early"  # the response ends with neither finish_reason nor [DONE]
    CUT = "cut"  # the connection closes in the middle of the response
    ERROR = "error"  # an error object, as servers send once the status is out
    ERROR_EVENT = "error-event"  # the same under the event name "error"
    GARBAGE = "garbage"  # half a JSON object, then [DONE]


class Framing(StrEnum):
    """How the events become bytes on the socket."""

    PLAIN = "plain"
    NO_SPACE = "no-space"  # "data:" without the space after it
    CR = "cr"
    CRLF = "crlf"
    CRLF_BYTES = "crlf-bytes"  # one byte in each segment, so that every CR LF is split
    MIXED = "mixed"  # a different line end for each line
    GATHERED = "gathered"  # many events in one segment
    BYTES = "bytes"  # one byte in each segment
    GZIP = "gzip"
    DEFLATE = "deflate"
    GZIP_MEMBERS = "gzip-members"  # each write a gzip member of its own
    BROTLI = "brotli"
    HTTP10 = "http10"  # no length, no chunks: the body ends with the connection
    EXTENSIONS = "extensions"  # chunk extensions and a trailer


class Body(StrEnum):
    """What a refusal looks like."""

    OPENAI = "openai"
    HTML = "html"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Fault:
    """One way. With a `status` other than 200, or a `body` given, nothing is generated."""

    name: str
    summary: str
    case: str = ""  # its number, where its name is not the number already
    status: int = 200
    body: Body | None = None
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    reads_slowly: bool = False  # takes the request's body at 16 kB/s
    hangs: bool = False  # takes the request and never answers
    interim: bytes = b""  # sent before the status line
    opening: bytes = b""  # sent at once, long before the first token
    inserted: bytes = b""  # sent after the third chunk, the text goes on
    first_token_delay_ms: int = 0
    after_tokens: int | None = None  # the answer is cut here; None leaves it whole
    forced_tokens: int = 0  # the answer goes on to this length, if the context allows
    ending: Ending = Ending.PROPER
    framing: Framing = Framing.PLAIN

    @property
    def refuses(self) -> bool:
        return self.body is not None


NO_FAULT = Fault("", "nothing")
SLOW_DOWN = "Too many requests: slow down."


def _refusal(name: str, status: int, message: str, *headers: tuple[str, str], case: str = "") -> Fault:
    return Fault(name, f"HTTP {status}", case, status, Body.OPENAI, message, headers)


def _page(name: str, status: int, case: str = "") -> Fault:
    return Fault(name, f"HTTP {status} with an HTML page", case, status, Body.HTML)


def _redirect(name: str, status: int) -> Fault:
    return Fault(name, f"HTTP {status}", "", status, Body.EMPTY, "", (("Location", "/elsewhere?token=secret"),))


def _cut(name: str, summary: str, case: str, ending: Ending) -> Fault:
    return Fault(name, f"{summary} after 20 tokens", case, after_tokens=20, ending=ending)


_STREAM_TYPE = (("Content-Type", "Text/Event-Stream;Charset=UTF-8 ; x=y"),)

_TABLE = (
    Fault("slow-first", "the first token comes 10 s late", first_token_delay_ms=10_000),
    _refusal("401", 401, "The API key is not valid.", case="u4"),
    _refusal("u4-403", 403, "This key may not use this model."),
    _refusal("u5", 404, "The model does not exist."),
    _page("u5-path", 404),
    _refusal("429", 429, SLOW_DOWN, ("Retry-After", "2"), case="u6"),
    _refusal("u6-date", 429, SLOW_DOWN, ("Retry-After", "Wed, 21 Oct 2065 07:28:00 GMT")),
    _refusal("u6-absent", 429, SLOW_DOWN),
    _refusal("u6-absurd", 429, SLOW_DOWN, ("Retry-After", "999999999999999999999")),
    _page("500", 500, case="u7-500"),
    _page("u7", 502),
    _page("503", 503, case="u7-503"),
    _page("u7-529", 529),
    Fault("u8", "HTTP 200 with a JSON error", body=Body.OPENAI, message="The model is overloaded."),
    Fault("u8-html", "HTTP 200 with an HTML page", body=Body.HTML),
    _redirect("u9", 302),
    _redirect("u9-307", 307),
    _redirect("u9-308", 308),
    Fault("hang", "takes the request and never answers", "u10", hangs=True),
    Fault("silent", "headers, then nothing at all", "u11", after_tokens=0, ending=Ending.SILENCE),
    Fault("u11-comments", "headers, then comments only", after_tokens=0, ending=Ending.HEARTBEAT),
    _cut("stall", "silence", "u12", Ending.SILENCE),
    _cut("reset", "connection reset", "u13", Ending.RESET),
    _cut("truncate", "an early end", "u14", Ending.EARLY),
    _cut("u14-close", "the connection closed within the response", "", Ending.CUT),
    Fault("no-done", "everything but the last line", "u15", ending=Ending.NO_DONE),
    Fault("linger", "more data after the end marker, then silence", "u16", ending=Ending.LINGER),
    _cut("error", "an error object", "u17", Ending.ERROR),
    _cut("u17-event", "an event named error", "", Ending.ERROR_EVENT),
    Fault("u18", "one event of malformed JSON in between", inserted=event.BROKEN),
    Fault("u18-many", "six events of malformed JSON in between", inserted=event.BROKEN * 6),
    _cut("garbage", "malformed JSON", "u18-end", Ending.GARBAGE),
    Fault("u19", "odd but legal framing", opening=event.ODD_FIELDS, framing=Framing.NO_SPACE),
    Fault("u19-noblank", "two events without the blank line between them", inserted=event.JOINED),
    Fault("u20", "mixed line ends", framing=Framing.MIXED),
    Fault("u20-cr", "carriage returns as line ends", framing=Framing.CR),
    Fault("u20-crlf", "CR LF as line ends", framing=Framing.CRLF),
    Fault("u20-split", "CR LF as line ends, split between segments", framing=Framing.CRLF_BYTES),
    Fault("u21", "characters split between segments", inserted=event.MANY_SCRIPTS, framing=Framing.BYTES),
    Fault("u22", "invalid UTF-8 and rare line separators", inserted=event.INVALID),
    Fault("u23", "many events in one segment", framing=Framing.GATHERED),
    Fault("u23-bytes", "one byte a segment", framing=Framing.BYTES),
    _cut("u24", "nothing but comments", "", Ending.HEARTBEAT),
    Fault("u25", "one line of 1.2 MiB in between", inserted=event.LONG),
    _cut("u25-body", "100 MiB of text as fast as it is read", "", Ending.FLOOD),
    Fault("u26", "a gzip body", headers=(("Content-Encoding", "gzip"),), framing=Framing.GZIP),
    Fault("u26-deflate", "a deflate body", headers=(("Content-Encoding", "deflate"),), framing=Framing.DEFLATE),
    Fault(
        "u26-members",
        "a gzip body of many members",
        headers=(("Content-Encoding", "gzip"),),
        framing=Framing.GZIP_MEMBERS,
    ),
    Fault("u26-br", "a brotli body", headers=(("Content-Encoding", "br"),), framing=Framing.BROTLI),
    Fault("u27", "100,000 tokens", forced_tokens=100_000),
    Fault("u28", "an answer of no tokens", after_tokens=0),
    Fault("u29", "empty deltas and usage before the first token", opening=event.EMPTY),
    Fault("u30", "a second choice and tool calls in between", inserted=event.OTHER_CHOICES),
    Fault("u32", "more data after the end marker, even when the client has closed its side", ending=Ending.DEAF),
    Fault("u33", "the prompt is taken at 16 kB/s", reads_slowly=True),
    Fault("u34-http10", "HTTP 1.0", framing=Framing.HTTP10),
    Fault("u34", "chunk extensions and a trailer", "u34-chunks", framing=Framing.EXTENSIONS),
    Fault("u34-type", "a content type in odd letters", headers=_STREAM_TYPE),
    Fault("u34-notype", "no content type", headers=(("Content-Type", ""),)),
    Fault("u34-100", "100 Continue first", interim=b"HTTP/1.1 100 Continue\r\n\r\n"),
    Fault("u34-103", "103 Early Hints first", interim=b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"),
)

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _TABLE})
_BY_CASE: Mapping[str, Fault] = MappingProxyType({fault.case: fault for fault in _TABLE if fault.case})


def find_fault(name: str) -> Fault | None:
    """Return the fault of a name or number; `U04`, `u4` and `fault-u04` are the same. None: there is none."""
    if name in FAULTS:
        return FAULTS[name]
    numbered = fullmatch(r"(?:fault-)?u0*(\d{1,2})(-\w+)?", name.casefold())
    if numbered is None:
        return None
    case = f"u{numbered[1]}{numbered[2] or ''}"
    return FAULTS.get(case) or _BY_CASE.get(case)
