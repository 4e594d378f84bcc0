"""Reading files that a user put there and that may be anything: missing, a pipe, too large."""

import errno
import os
import stat
from pathlib import Path


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """Return a regular file's content, cut off after `most_bytes`.

    Raises:
        OSError: The file cannot be read, or is a directory, a pipe or a device.
    """
    # A plain open() of a pipe would wait until a process writes to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return file.read(most_bytes)


def reason_of(error: OSError) -> str:
    """Return the error's reason in lower case, such as `no such file or directory`."""
    return (error.strerror or str(error)).lower()
