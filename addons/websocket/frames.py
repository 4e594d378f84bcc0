"""Where the messages of a WebSocket begin and end (RFC 6455, 5.2); not a byte is changed."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a frame. Whole messages `begin` and `end`, control frames do neither."""

    data: bytes
    control: bool
    begins: bool
    ends: bool


class Frames:
    """One direction of a WebSocket."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = self._gone = 0
        self._control = self._inside = False

    def feed(self, data: bytes) -> Iterator[Segment]:
        """The segments of what has come; an unfinished head is kept."""
        self._buffer += data
        while self._buffer:
            if self._left:
                most = min(self._left, len(self._buffer))
                part = self._take(most)
                self._left -= most
                yield Segment(part, self._control, False, self._ended)
                continue
            size = _head_size(self._buffer)
            if size is None:
                return
            yield self._head(bytes(self._buffer[:size]), self._take(size))

    def rest(self) -> bytes:
        """What there is of a head that never became whole."""
        return self._take(len(self._buffer))

    def watch(self, data: bytes) -> None:
        """Note what passes by itself, so as to know where the next message begins."""
        for _ in self.feed(data):
            pass
        self._gone = len(self._buffer)

    @property
    def _ended(self) -> bool:
        return not self._left and not self._control and not self._inside

    def _head(self, head: bytes, unsent: bytes) -> Segment:
        self._control = bool(head[0] & 0x08)
        self._left = _payload(head)
        whole = len(unsent) == len(head)  # else it has begun, and goes on as it has
        begins = whole and not self._control and not self._inside
        if not self._control:
            self._inside = not head[0] & 0x80
        return Segment(unsent, self._control, begins, self._ended)

    def _take(self, size: int) -> bytes:
        part = bytes(self._buffer[self._gone : size])
        del self._buffer[:size]
        self._gone = 0
        return part


def _head_size(buffer: bytearray) -> int | None:
    """None: there is too little to tell."""
    if len(buffer) < 2:
        return None
    length = buffer[1] & 0x7F
    size = 2 + {126: 2, 127: 8}.get(length, 0) + (4 if buffer[1] & 0x80 else 0)
    return size if len(buffer) >= size else None


def _payload(head: bytes) -> int:
    length = head[1] & 0x7F
    match length:
        case 126:
            return int.from_bytes(head[2:4], "big")
        case 127:
            return int.from_bytes(head[2:10], "big")
        case _:
            return length
