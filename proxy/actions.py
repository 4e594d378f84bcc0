"""What a data plane performs: a small closed set. A new action makes mypy name every engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delay:
    """Hold the exchange back for some seconds, then let it go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer in the upstream's place."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the exchange without an answer; `reset`: with a TCP RST (on HTTP/2, both RST_STREAM)."""

    reset: bool


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing until the client leaves; after `seconds` close."""

    seconds: float


type Action = Delay | Respond | Disconnect | Hang
