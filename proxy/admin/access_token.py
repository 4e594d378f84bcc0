"""The token that protects the admin port, and the sessions of browsers that were given it."""

import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from counterfault.proxy.config.token_file import read_token

# How long a browser stays signed in, in seconds.
SESSION_SECONDS = 12 * 3600

type _Version = tuple[int, int, int, int]


class Token:
    """The token in a file, which is read again when the file changes.

    While the file is missing or holds no valid token, the last valid one stays in use.
    """

    def __init__(
        self,
        path: Path,
        failed: Callable[[str, BaseException], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Read the token. Raises OSError or ValueError if the file holds none.

        Args:
            path: The file.
            failed: Is called with `admin` and the error when a changed file holds no valid token.
            wall: Returns Unix seconds.
        """
        self._path, self._failed, self._wall = path, failed, wall
        self._version = self._file_version()
        self._token = read_token(path)

    def matches(self, offered: str) -> bool:
        """Return whether a text is the token, in a time that does not depend on the text."""
        self._refresh()
        return _equal(offered.encode(), self._token)

    def new_session(self) -> str:
        """Return what a browser keeps instead of the token: the end of its session, signed.

        The token is the key of the signature, so a new token ends all sessions.
        """
        self._refresh()
        until = str(int(self._wall()) + SESSION_SECONDS)
        return f"{until}.{self._seal(until)}"

    def is_session(self, session: str) -> bool:
        """Return whether a text is a session that this token signed and that has not ended."""
        self._refresh()
        until, _, seal = session.partition(".")
        if not _equal(seal.encode(), self._seal(until).encode()):
            return False
        return int(until) > self._wall()

    def _seal(self, until: str) -> str:
        text = f"counterfault session until {until}".encode()
        return hmac.new(self._token, text, sha256).hexdigest()

    def _refresh(self) -> None:
        version = self._file_version()
        if version is None or version == self._version:
            return
        self._version = version
        try:
            self._token = read_token(self._path)
        except (OSError, ValueError) as e:
            self._failed("admin", ValueError(f"token_file: {e}"))

    def _file_version(self) -> _Version | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _equal(one: bytes, other: bytes) -> bool:
    """Compare hashes, so that the time tells nothing, not even the length."""
    return hmac.compare_digest(sha256(one).digest(), sha256(other).digest())
