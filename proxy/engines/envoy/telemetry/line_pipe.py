"""Reads a pipe line by line, in the running event loop."""

import asyncio
import os
from collections.abc import Callable

# Bytes that are read at once.
_CHUNK = 1 << 20
# Bytes after which an unfinished line is dropped; lines of ours are far shorter.
_LONGEST = 1 << 16


class LinePipe:
    """One pipe, read whenever it has data."""

    def __init__(
        self,
        handle: int,
        each: Callable[[bytes], None],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to read.

        Args:
            handle: A non-blocking descriptor, which the object closes.
            each: Called with every line, without its line feed.
            before: Called before the lines that were read at once.
        """
        self._handle, self._each, self._before = handle, each, before
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(handle, self.read)

    def read(self) -> None:
        """Read what is there, at most 1 MiB."""
        try:
            data = os.read(self._handle, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest = b""
        self._before()
        for line in lines:
            self._each(line)

    def close(self) -> None:
        """Stop reading and close the descriptor."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1
