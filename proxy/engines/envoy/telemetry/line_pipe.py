"""Lines that Envoy writes into a pipe, read as they come."""

import asyncio
import os
from collections.abc import Callable

_CHUNK = 1 << 20
# A line is short; what is longer is no line of ours.
_LONGEST = 1 << 16


class LinePipe:
    """Calls `each` with every line."""

    def __init__(self, handle: int, each: Callable[[bytes], None]) -> None:
        self._handle, self._each = handle, each
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(handle, self.read)

    def read(self) -> None:
        """Take what is there."""
        try:
            data = os.read(self._handle, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest = b""
        for line in lines:
            self._each(line)

    def close(self) -> None:
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
