"""The directory in which Envoy runs. One rename swaps all files of a configuration's version."""

import json
import os
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from counterfault.proxy.engines.envoy.config.names import (
    BEGINS_PIPE,
    LEASE_FILE,
    LEAVE_FILE,
    LINES_PIPE,
    LIVE_LINK,
    VERSIONS_DIR,
    Json,
)

LOG = "log"
PID = "process.json"
PIPES = (LINES_PIPE, BEGINS_PIPE, LOG)
"""What Envoy writes for the supervisor to read: the access log, begins of exchanges, its log."""


class RunDirectory:
    """Envoy's files. The directory belongs to one sidecar and outlives the supervisor."""

    def __init__(self, wanted: Path) -> None:
        """Make the directory and its pipes, in a temporary place if `wanted` cannot be used.

        Raises:
            OSError: The temporary place cannot be used either.
        """
        self.path = _usable(wanted)
        self._number = 0
        for name in PIPES:
            if not (self.path / name).is_fifo():
                (self.path / name).unlink(missing_ok=True)
                os.mkfifo(self.path / name, 0o600)

    def open_pipe(self, name: str) -> int:
        """Return a descriptor of a pipe; it is open for writing too, so that reading never ends."""
        return os.open(self.path / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def read_live(self, file: str) -> Json | None:
        """Return the content of a file in the present version; None if there is none."""
        try:
            found: Json = json.loads((self.path / LIVE_LINK / file).read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def swap_version(self, files: Mapping[str, Json]) -> None:
        """Replace the present version by a new one that has these files. Raises OSError."""
        self._number = max((_number(p.name) for p in self._versions()), default=0) + 1
        version = self.path / VERSIONS_DIR / str(self._number)
        version.mkdir(mode=0o700)
        for name, content in files.items():
            _write(version / name, content)
        link = self.path / VERSIONS_DIR / "next"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        before = os.path.realpath(self.path / LIVE_LINK)
        link.rename(self.path / LIVE_LINK)
        for old in self._versions():
            if str(old) not in (str(version), before):
                shutil.rmtree(old, ignore_errors=True)

    def write_file(self, name: str, content: Json) -> None:
        """Replace a file outside the versions. Raises OSError."""
        beside = self.path / f"{name}.new"
        _write(beside, content)
        beside.rename(self.path / name)

    def read_file(self, name: str) -> Json:
        """Return the content of such a file; empty if the file is missing or broken."""
        try:
            found = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_lease(self, until: float) -> None:
        """Let Envoy inject faults until then, in seconds of the monotonic clock. Raises OSError."""
        self._write_number(LEASE_FILE, int(until * 1000))

    def set_draining(self, draining: bool) -> None:
        """Tell Envoy whether to close idle connections; it notices within 0.25 s."""
        self._write_number(LEAVE_FILE, int(draining))

    @property
    def is_draining(self) -> bool:
        """Whether Envoy has been told to close idle connections."""
        try:
            return (self.path / LEAVE_FILE).read_text().strip() == "1"
        except OSError:
            return False

    def socket_path(self, name: str) -> str:
        """Return a path that fits into a Unix socket's address, however long the directory's is.

        For a long path it opens a descriptor of the directory, which stays open.
        """
        path = str(self.path / name)
        if len(path) < 100 or not os.path.isdir("/proc/self/fd"):
            return path
        handle = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        return f"/proc/self/fd/{handle}/{name}"

    def _write_number(self, name: str, number: int) -> None:
        beside = self.path / f"{name}.new"
        beside.write_text(f"{number}\n")
        beside.rename(self.path / name)

    def _versions(self) -> list[Path]:
        folder = self.path / VERSIONS_DIR
        return [p for p in folder.iterdir() if not p.is_symlink() and p.is_dir()]


def version_of(content: object) -> str:
    """Return a version name for JSON data: 16 hex digits, the same for the same data."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _usable(wanted: Path) -> Path:
    try:
        (wanted / VERSIONS_DIR).mkdir(parents=True, exist_ok=True, mode=0o700)
        (wanted / "probe").write_bytes(b"")
        (wanted / "probe").unlink()
    except OSError:
        wanted = Path(mkdtemp(prefix="counterfault-"))
        (wanted / VERSIONS_DIR).mkdir(mode=0o700)
    return wanted.resolve()


def _write(path: Path, content: Json) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file, separators=(",", ":"))


def _number(name: str) -> int:
    return int(name) if name.isdigit() else 0
