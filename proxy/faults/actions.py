"""What a data plane performs: a small closed set. A new action makes mypy name every engine."""

from dataclasses import dataclass

type JsonValue = bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None


@dataclass(frozen=True, slots=True)
class Delay:
    """Hold the exchange, or the message, back for some seconds, then let it go on."""

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


@dataclass(frozen=True, slots=True)
class Pace:
    """Let `size` bytes through at a time, and then none for `seconds`."""

    size: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds


@dataclass(frozen=True, slots=True)
class Throttle:
    """Pace what goes `up` to the upstream, and `down` to the client; None: at full speed."""

    up: Pace | None
    down: Pace | None


@dataclass(frozen=True, slots=True)
class Truncate:
    """End what goes to the client early, after so many bytes or this share of them, unorderly."""

    after: int | None
    share: float | None


@dataclass(frozen=True, slots=True)
class Edit:
    """Headers to remove, in lower case, and then to set."""

    remove: tuple[bytes, ...] = ()
    set: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Flip:
    """Change this share of a body's bytes, chosen by `seed`; the length stays."""

    share: float
    seed: float


@dataclass(frozen=True, slots=True)
class Replace:
    """Another body."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """Set the value at a JSON pointer (RFC 6901), or `remove` it."""

    pointer: tuple[str, ...]
    value: JsonValue
    remove: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Change the headers of the request or of the answer, or the answer's body."""

    request: Edit = Edit()
    response: Edit = Edit()
    body: Flip | Replace | Patch | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send the request `times` times in all; the client gets the first one's answer."""

    times: int


type Action = Delay | Respond | Disconnect | Hang | Throttle | Truncate | Rewrite | Repeat
