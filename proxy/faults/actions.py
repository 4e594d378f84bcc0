"""Actions: what a data plane can do to an exchange, a message or a connection.

The set is small and closed, and there are four performers. Each has one place where it looks at an
action. An action that is added here makes mypy name these places (`assert_never`), but for that of
WebSocket messages, which ignores what it cannot do.

| action     | HTTP exchange            | raw connection           | WebSocket message | Envoy     |
|------------|--------------------------|--------------------------|-------------------|-----------|
| Delay      | waits, then goes on      | delays each piece        | delays it         | yes       |
| Respond    | responds itself          | -                        | -                 | yes       |
| Disconnect | ends, or sends a reset   | ends, or sends a reset   | ends, or resets   | no resets |
| Hang       | waits, then ends         | waits, then ends         | loses it          | yes       |
| Throttle   | paces the bodies         | paces the bytes          | -                 | -         |
| Truncate   | cuts the response's body | cuts what goes to client | -                 | -         |
| Rewrite    | edits heads and body     | -                        | -                 | -         |
| Repeat     | sends the request again  | -                        | -                 | -         |

The places: HTTP exchanges in `addons/pipeline/perform.py`, raw connections in `addons/tcp/layer.py`
(delays: `addons/tcp/enrolment.py`), WebSocket messages in `addons/websocket/message_layer.py`, and
Envoy in `proxy/engines/envoy/config/native_faults.py`. What Envoy cannot do takes a detour through
workers. `Fault.tcp` and `Fault.messages` say which faults may happen to raw connections and single
messages; `counterfault check` refuses the others there.
"""

from dataclasses import dataclass

type JsonValue = bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None


@dataclass(frozen=True, slots=True)
class Delay:
    """Hold an exchange or a message back for `seconds`, then let it go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Respond:
    """Respond in the upstream's place, which never sees the request."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the exchange without a response.

    On HTTP/2 with RST_STREAM. On HTTP/1 the connection is closed, and `reset` does so with a TCP
    RST.
    """

    reset: bool


@dataclass(frozen=True, slots=True)
class Hang:
    """Send nothing; after `seconds`, end the exchange without a response."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Let `size` bytes through, then none for `seconds`, and so on."""

    size: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds


@dataclass(frozen=True, slots=True)
class Throttle:
    """Pace what is sent `up` to the upstream and `down` to the client; None: at full speed."""

    up: Pace | None
    down: Pace | None


@dataclass(frozen=True, slots=True)
class Truncate:
    """End what is sent to the client early, and not as the protocol would end it.

    `after`: bytes that come through; `share`: the share of all bytes that does, from 0 to below 1.
    One of them is None.
    """

    after: int | None
    share: float | None


@dataclass(frozen=True, slots=True)
class Edit:
    """Headers to remove, named in lower case, and headers to set after that."""

    remove: tuple[bytes, ...] = ()
    set: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Flip:
    """Change some bytes of a body and keep its length.

    `share`: the share of bytes, above 0 to 1. `seed`, in [0, 1), decides which.
    """

    share: float
    seed: float


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace the body."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """Set the value at a JSON pointer (RFC 6901), or remove it.

    `pointer`: the names on the way to the value, unescaped.
    """

    pointer: tuple[str, ...]
    value: JsonValue
    remove: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Change the headers of the request or of the response, or the body of the response."""

    request: Edit = Edit()
    response: Edit = Edit()
    body: Flip | Replace | Patch | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send the request `times` times in all; the client gets the response to the first."""

    times: int


type Action = Delay | Respond | Disconnect | Hang | Throttle | Truncate | Rewrite | Repeat
