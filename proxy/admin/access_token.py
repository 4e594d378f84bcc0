"""The admin port's token: compared with what a client offers, and the seal of page sessions."""

import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from counterfault.proxy.config.token_file import read_token

# How long a browser stays signed in, in seconds.
SESSION = 12 * 3600

type _Version = tuple[int, int, int, int]


class Token:
    """Read again as soon as its file is another; the last good one stays where that is bad."""

    def __init__(
        self,
        path: Path,
        failed: Callable[[str, BaseException], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises OSError or ValueError if the file holds no token now."""
        self._path, self._failed, self._wall = path, failed, wall
        self._version = self._present()
        self._token = read_token(path)

    def matches(self, offered: str) -> bool:
        """Whether it is the token; how long this takes says nothing of it."""
        self._refresh()
        return _same(offered.encode(), self._token)

    def session(self) -> str:
        """What a browser keeps instead of the token; a new token ends it."""
        self._refresh()
        until = str(int(self._wall()) + SESSION)
        return f"{until}.{self._seal(until)}"

    def knows(self, session: str) -> bool:
        """Whether a session is one of ours and not over."""
        self._refresh()
        until, _, seal = session.partition(".")
        if not _same(seal.encode(), self._seal(until).encode()):
            return False
        return int(until) > self._wall()

    def _seal(self, until: str) -> str:
        said = f"counterfault session until {until}".encode()
        return hmac.new(self._token, said, sha256).hexdigest()

    def _refresh(self) -> None:
        version = self._present()
        if version is None or version == self._version:
            return
        self._version = version
        try:
            self._token = read_token(self._path)
        except (OSError, ValueError) as e:
            self._failed("admin", ValueError(f"token_file: {e}"))

    def _present(self) -> _Version | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _same(one: bytes, other: bytes) -> bool:
    """Hashed first, so that not even the length can be measured."""
    return hmac.compare_digest(sha256(one).digest(), sha256(other).digest())
