"""Upstreams for tests and benchmarks. Not one line of the product is used in them, so that they can judge it.

`scripted`   every habit and every fault of a server, chosen by the request's `model`; all is recorded
`expected`   what a turn against each scenario must come to: outcome, kind of error, text kept
`replay`     the recorded answers of real servers; `capture` records them
`reference`  a fast stream with the time of writing inside each token, in a process of its own

Faults that are not an answer have a helper instead of a model name:

| fault                    | helper                                | outcome | kind            |
|--------------------------|---------------------------------------|---------|-----------------|
| U1 closed port           | closed_port()                         | error   | refused         |
| U1 full queue            | full_port()                           | timeout | connect_timeout |
| U3 wrong certificate     | scripted_upstream(certificate=…)      | error   | tls             |
| U3 stalled handshake     | silent_port("https")                  | timeout | connect_timeout |
| U33 prompt is never read | silent_port("http"), prompt of 16 MiB | timeout | first_byte_timeout |

U2 (names) and U31 (the wall clock) need no server: a fake resolver and a fake clock act them out.
"""

from tests.upstreams.expected import EXPECTED, Expected
from tests.upstreams.scripted import (
    SCENARIOS,
    Upstream,
    closed_port,
    full_port,
    scripted_upstream,
    silent_port,
)

__all__ = [
    "EXPECTED",
    "SCENARIOS",
    "Expected",
    "Upstream",
    "closed_port",
    "full_port",
    "scripted_upstream",
    "silent_port",
]
