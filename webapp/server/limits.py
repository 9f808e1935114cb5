"""What a client may ask of the server, and how long the server waits. Data only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits per connection, unless said otherwise.

    `stall_s`: a reader that takes not one byte of what waits for it in this time is cut off.
    `vanished_s`: the same for a host that acknowledges nothing; the kernel's business, and longer, so that the log
    line comes first.
    `message_bytes`: one incoming WebSocket message; what we send is not limited. It leaves room for the longest
    prompt that a page may send (40,000 characters of up to four bytes), so that a longer one is answered in words.
    `inbox_messages`, `inbox_bytes`: unread incoming messages at which reading from the socket pauses.
    `unsent_bytes`: what the kernel may hold unsent, so that a stalled reader costs little there too.
    """

    body_bytes: int = 1024 * 1024
    message_bytes: int = 256 * 1024
    message_frames: int = 1024
    header_lines: int = 100
    header_bytes: int = 16 * 1024
    inbox_messages: int = 64
    inbox_bytes: int = 512 * 1024
    unsent_bytes: int = 128 * 1024
    backlog: int = 1024

    stall_s: float = 30.0
    vanished_s: float = 40.0
    arrival_s: float = 60.0
    handshake_s: float = 10.0
    ping_interval_s: float = 5.0
    ping_timeout_s: float = 5.0
    application_close_s: float = 5.0


@dataclass(frozen=True, slots=True)
class StopTimes:
    """How long each step of a clean end may take; the sum stays below `forced_s`, counted from the signal."""

    websocket_grace_s: float = 0.25
    stream_grace_s: float = 0.75
    leave_s: float = 1.25
    cancel_s: float = 0.5
    flush_s: float = 1.75
    forced_s: float = 5.0


DEFAULT_LIMITS = ServerLimits()
DEFAULT_STOP_TIMES = StopTimes()
