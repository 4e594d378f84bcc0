"""Finds where messages of a WebSocket begin and end (RFC 6455, section 5.2); changes no byte."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a frame. Of a control frame no segment begins or ends a message."""

    data: bytes
    control: bool
    begins: bool
    ends: bool


class FrameParser:
    """Parses one direction of a WebSocket."""

    def __init__(self) -> None:
        """Start at the beginning of a frame."""
        self._buffer = bytearray()
        self._left = 0
        """Bytes of the present frame's payload that have not come yet."""
        self._skipped = 0
        """Bytes at the buffer's start that have been passed on already."""
        self._control = self._inside = False

    def feed(self, data: bytes) -> Iterator[Segment]:
        """Yield the segments in `data`; a frame's head that is incomplete is kept."""
        self._buffer += data
        while self._buffer:
            if self._left:
                most = min(self._left, len(self._buffer))
                part = self._take(most)
                self._left -= most
                yield Segment(part, self._control, False, self._at_end)
                continue
            size = _head_size(self._buffer)
            if size is None:
                return
            yield self._parse_head(bytes(self._buffer[:size]), self._take(size))

    def skip(self, data: bytes) -> None:
        """Parse data that is passed on as it is, to know where the next message begins."""
        for _ in self.feed(data):
            pass
        self._skipped = len(self._buffer)

    def take_rest(self) -> bytes:
        """Return what has come of a head that stays incomplete."""
        return self._take(len(self._buffer))

    @property
    def _at_end(self) -> bool:
        """Whether a message ends here."""
        return not self._left and not self._control and not self._inside

    def _parse_head(self, head: bytes, unsent: bytes) -> Segment:
        self._control = bool(head[0] & 0x08)
        self._left = _payload_size(head)
        # A head that was passed on in part has begun a message before any of its segments.
        whole = len(unsent) == len(head)
        begins = whole and not self._control and not self._inside
        if not self._control:
            self._inside = not head[0] & 0x80
        return Segment(unsent, self._control, begins, self._at_end)

    def _take(self, size: int) -> bytes:
        part = bytes(self._buffer[self._skipped : size])
        del self._buffer[:size]
        self._skipped = 0
        return part


def _head_size(buffer: bytearray) -> int | None:
    """Return the size of a frame's head in bytes, or None if too little of it has come."""
    if len(buffer) < 2:
        return None
    length = buffer[1] & 0x7F
    size = 2 + {126: 2, 127: 8}.get(length, 0) + (4 if buffer[1] & 0x80 else 0)
    return size if len(buffer) >= size else None


def _payload_size(head: bytes) -> int:
    length = head[1] & 0x7F
    match length:
        case 126:
            return int.from_bytes(head[2:4], "big")
        case 127:
            return int.from_bytes(head[2:10], "big")
        case _:
            return length
