"""The directory in which Envoy runs: its files, each version of them swapped in by one rename."""

import json
import os
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from counterfault.proxy.engines.envoy.config.names import (
    BOOTSTRAP,
    CONFIG,
    LEASE,
    LEAVE,
    LINES,
    LIVE,
    Json,
)

LOG = "log"
PID = "process.json"


class RunDirectory:
    """Private to one sidecar; it outlives the supervisor, as Envoy does."""

    def __init__(self, wanted: Path) -> None:
        """Under the state directory, or, where that cannot be used, somewhere else."""
        self.path = _usable(wanted)
        self._number = 0
        for name in (LINES, LOG):
            if not (self.path / name).is_fifo():
                (self.path / name).unlink(missing_ok=True)
                os.mkfifo(self.path / name, 0o600)

    def open_pipe(self, name: str) -> int:
        """The reading end of a pipe; with a writing one, so that it never ends."""
        return os.open(self.path / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def present(self, file: str) -> Json | None:
        """A file of the present version; None if there is none."""
        try:
            found: Json = json.loads((self.path / LIVE / file).read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def swap(self, files: Mapping[str, Json]) -> None:
        """Put a whole version in the place of the one before."""
        self._number = max((_number(p.name) for p in self._versions()), default=0) + 1
        version = self.path / CONFIG / str(self._number)
        version.mkdir(mode=0o700)
        for name, content in files.items():
            _write(version / name, content)
        link = self.path / CONFIG / "next"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        before = os.path.realpath(self.path / LIVE)
        link.rename(self.path / LIVE)
        for old in self._versions():
            if str(old) not in (str(version), before):
                shutil.rmtree(old, ignore_errors=True)

    def put(self, name: str, content: Json) -> None:
        """Replace a file outside the versions."""
        beside = self.path / f"{name}.new"
        _write(beside, content)
        beside.rename(self.path / name)

    def get(self, name: str) -> Json:
        """Such a file; empty if it is not there or no good."""
        try:
            found = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def lease(self, until: float) -> None:
        """Let faults happen until then, in seconds of the monotonic clock."""
        self._say(LEASE, int(until * 1000))

    def let_go(self, now: bool) -> None:
        """Whether clients that ask for nothing are to leave; Envoy sees it at once."""
        self._say(LEAVE, int(now))

    @property
    def lets_go(self) -> bool:
        """Whether an Envoy that is there has been told to end."""
        try:
            return (self.path / LEAVE).read_text().strip() == "1"
        except OSError:
            return False

    def socket(self, name: str) -> str:
        """A path that fits a Unix socket's address, however long the directory's is."""
        path = str(self.path / name)
        if len(path) < 100 or not os.path.isdir("/proc/self/fd"):
            return path
        handle = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        return f"/proc/self/fd/{handle}/{name}"

    def _say(self, name: str, number: int) -> None:
        beside = self.path / f"{name}.new"
        beside.write_text(f"{number}\n")
        beside.rename(self.path / name)

    def _versions(self) -> list[Path]:
        folder = self.path / CONFIG
        return [p for p in folder.iterdir() if not p.is_symlink() and p.is_dir()]


def version_of(content: object) -> str:
    """What a content is called: the same one has the same name."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def bootstrap_of(directory: RunDirectory) -> Json:
    return directory.get(BOOTSTRAP)


def _usable(wanted: Path) -> Path:
    try:
        (wanted / CONFIG).mkdir(parents=True, exist_ok=True, mode=0o700)
        (wanted / "probe").write_bytes(b"")
        (wanted / "probe").unlink()
    except OSError:
        wanted = Path(mkdtemp(prefix="counterfault-"))
        (wanted / CONFIG).mkdir(mode=0o700)
    return wanted.resolve()


def _write(path: Path, content: Json) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file, separators=(",", ":"))


def _number(name: str) -> int:
    return int(name) if name.isdigit() else 0
