"""How a stream can end, and the one exception that says whose fault an early end is."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The state of a turn. Every turn reaches exactly one of the states other than RUNNING.

    STOPPED and INTERRUPTED are our own doing (a person, a tab that went away, a shutdown) and never count as failures
    of the server. Only DONE enters success percentiles.
    """

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    ERROR = "error"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    INTERRUPTED = "interrupted"

    @property
    def failed(self) -> bool:
        """True where the backend, not we, ended the answer early."""
        return self in (Outcome.ERROR, Outcome.TIMEOUT, Outcome.TRUNCATED)


# Why an INTERRUPTED answer is not whole: nothing failed, so there is no error to say it.
SHUT_DOWN = "Splitsecond was shut down before this answer was whole; run it again."

# kind -> how a turn that met it is counted; kinds not named here are ERROR.
_OUTCOME_OF_KIND = {
    "connect_timeout": Outcome.TIMEOUT,
    "dns_timeout": Outcome.TIMEOUT,
    "first_byte_timeout": Outcome.TIMEOUT,
    "first_event_timeout": Outcome.TIMEOUT,
    "gap_timeout": Outcome.TIMEOUT,
    "total_timeout": Outcome.TIMEOUT,
    "reset": Outcome.TRUNCATED,
    "truncated": Outcome.TRUNCATED,
}


class StreamError(Exception):
    """A turn that could not be finished.

    `kind` is one short machine word (`refused`, `rate_limited`, `gap_timeout`, …), `message` one plain sentence saying
    what happened, on whose side, and what to do. `permanent` is False where trying again later can help;
    `retry_after_s` holds the backend's own advice in seconds, None where it gave none; `status` is its HTTP status, 0
    where there was none. Messages hold no secrets: they are shown to everybody in the room.
    """

    def __init__(
        self, kind: str, message: str, *, permanent: bool = False, retry_after_s: float | None = None, status: int = 0
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.permanent = permanent
        self.retry_after_s = retry_after_s
        self.status = status

    @property
    def message(self) -> str:
        return str(self.args[0])

    @message.setter
    def message(self, message: str) -> None:
        self.args = (message,)  # the only copy: what is redacted here is redacted in a traceback too

    @property
    def outcome(self) -> Outcome:
        return _OUTCOME_OF_KIND.get(self.kind, Outcome.ERROR)
