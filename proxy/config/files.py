"""Reading files that others put there and that may be anything."""

import errno
import os
import stat
from pathlib import Path


def contents(path: Path, most: int) -> bytes:
    """A regular file's first `most` bytes; raises OSError."""
    # A pipe without a writer would hold up a plain open() for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return file.read(most)


def why(error: OSError) -> str:
    """`no such file or directory`"""
    return (error.strerror or str(error)).lower()
