"""Real programs for tests: sidecars, nginx; started on free ports, stopped by their own pid."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from counterfault.proxy.experiments.cohorts import Arcs, Cohort, salt_of

DEADLINE = 30.0
# In an order of its own for each process: tests run several at a time.
_PORTS = iter(secrets.SystemRandom().sample(range(20_000, 32_000), 12_000))


def until[T](what: Callable[[], T], deadline: float = DEADLINE, every: float = 0.02) -> T:
    """Wait for a true value; fail after `deadline` seconds with the last one."""
    end = time.monotonic() + deadline
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"not so after {deadline} s: {what}: last {value!r}")
        time.sleep(every)


def alive(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    """A port that nobody uses now, never the same, and that meanwhile no connection is given.

    Linux gives connections ports from 32768 on, those that it gives for a `bind` to 0 among them.
    """
    for port in _PORTS:
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port is free")


def program(name: str) -> str:
    """The path of a Debian program; without it the test is skipped, in CI it fails."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        unavailable(f"{name} is not installed")
    return path


def unavailable(why: str) -> NoReturn:
    """The test cannot run here: it is skipped, and fails in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def user(
    cohort: str, experiment: str = "x", run: int = 1, share: float = 0.3, skip: int = 0
) -> str:
    """A user of the cohort `control`, `experiment` or `bystander`, for equal shares of both."""
    arcs = Arcs(experiment, salt_of(experiment, run), share, share)
    wanted = None if cohort == Cohort.BYSTANDER else cohort
    found = (
        name
        for name in (f"user-{i}" for i in range(100_000))
        if ((e := arcs.enrolment_of(name.encode())) and e.cohort) == wanted
    )
    for _ in range(skip):
        next(found)
    return next(found)


class _Plain(yaml.SafeDumper):
    """Writes what is the same object twice as often, not as an alias: we refuse these."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Sidecar:
    """A real `counterfault run` in a directory of its own."""

    def __init__(self, directory: Path, upstream: str, settings: dict[str, Any]) -> None:
        self.directory = directory
        self.port, self.admin_port = free_port(), free_port()
        listeners = {"inbound": {"listen": f"127.0.0.1:{self.port}", "upstream": upstream}}
        listeners["inbound"].update(settings.pop("inbound", {}))
        listeners.update(settings.pop("listeners", {}))
        (directory / "experiments").mkdir(parents=True, exist_ok=True)
        self.settings = {
            "service": "shop",
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "listeners": listeners,
            "state_dir": str(directory / "state"),
            **{"limits": {"enrolled": "100%"}, **settings},
        }
        self.write_settings()
        self.environment: dict[str, str] = {}
        """What is set beside our own."""
        self.command = [sys.executable, "-m", "counterfault"]
        """What runs the command `counterfault`: this checkout's, or that of another."""
        self.cwd: Path | None = None
        """Another checkout's must not run in this one's folder, where Python looks first."""
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "sidecar.log"

    def write_settings(self) -> None:
        self._replace(self.directory / "sidecar.yaml", self.settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def start(self, *, ready: bool = True) -> "Sidecar":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "run", str(self.directory)],
                cwd=self.cwd,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        if ready:
            until(self.ready, deadline=90)  # two CPU seconds, of a machine that others use too
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; what is left of its workers dies with it."""
        if self.process is None:
            return 0
        workers = self.workers()
        self.process.send_signal(number)
        code = self.process.wait(60)
        if number == signal.SIGKILL:
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process = None
        return code

    def workers(self) -> list[int]:
        """The pids of its worker processes."""
        if self.process is None:
            return []
        pids: list[int] = self.get("/api/experiments")["workers"]["pids"]
        return pids

    def experiment(self, name: str = "x", **changes: Any) -> None:
        """Write an experiment's file; without baseline, with 30 % in each cohort."""
        self._replace(self.directory / "experiments" / f"{name}.yaml", self.said(name, **changes))

    def said(self, name: str = "x", **changes: Any) -> dict[str, Any]:
        """What an experiment's file says."""
        return {
            "experiment": name,
            "state": "running",
            "duration": "1h",
            "baseline": "0s",
            "recovery": "0s",
            "cohorts": {"experiment": "30%", "control": "30%"},
            **changes,
        }

    def running(self, name: str = "x", **changes: Any) -> None:
        """Write an experiment's file and wait until its faults are on."""
        self.experiment(name, **changes)
        wanted = (changes.get("run", 1), "running")
        until(lambda: self._run(name) == wanted and self.acts())

    def acts(self) -> bool:
        """Whether the whole data plane acts on the present plan."""
        ready: int = self.get("/api/experiments")["workers"]["ready"]
        wanted: int = self.settings.get("workers", 1)
        return ready == wanted

    def state(self, name: str = "x") -> str | None:
        """The state of the run, None while it is not known."""
        return self._run(name)[1]

    def _run(self, name: str) -> tuple[int | None, str | None]:
        """The present run's number and state."""
        found = [e for e in self.get("/api/experiments")["experiments"] if e["name"] == name]
        return (int(found[0]["run"]), str(found[0]["state"])) if found else (None, None)

    def get(self, path: str) -> Any:
        return json.loads(self.ask("GET", path))

    def post(self, path: str) -> Any:
        return self.ask("POST", path)

    def ask(self, method: str, path: str) -> bytes:
        """What the admin port answers; with the token, if there is one."""
        request = urllib.request.Request(self.admin + path, method=method)
        if token_file := self.settings["admin"].get("token_file"):
            token = (self.directory / token_file).read_text().strip()
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def metrics(self) -> str:
        """The text of /metrics."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        lines = self.metrics().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((name + "{", name + " ")) and all(w in line for w in wanted)
        )

    def ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the sidecar ended: {self.log.read_text()}")
        try:
            with urllib.request.urlopen(self.admin + "/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _replace(self, path: Path, data: dict[str, Any]) -> None:
        beside = path.with_suffix(".new")
        beside.write_text(yaml.dump(data, Dumper=_Plain, sort_keys=False))
        beside.rename(path)


class Nginx:
    """A real nginx with one server block."""

    def __init__(self, directory: Path, server: str, http: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.access = directory / "access.log"
        self._conf = directory / "nginx.conf"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "www").mkdir(exist_ok=True)
        self.www = directory / "www"
        self._conf.write_text(
            f"""
            daemon off; worker_processes 1; pid {directory}/nginx.pid; user root;
            error_log {directory}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                log_format headers '$request|$status|$http_x_counterfault|$http_baggage';
                access_log {self.access} headers;
                client_body_temp_path {directory}; client_max_body_size 0;
                proxy_temp_path {directory}; fastcgi_temp_path {directory};
                uwsgi_temp_path {directory}; scgi_temp_path {directory};
                keepalive_requests 1000000; root {self.www};
                {http}
                server {{ listen 127.0.0.1:{self.port}; {server} }}
            }}"""
        )
        self.start()

    def start(self) -> None:
        """Again on the same port, after `stop`."""
        command = [program("nginx"), "-c", str(self._conf), "-p", str(self._conf.parent)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._answers)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _answers(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


type MakeSidecar = Callable[..., Sidecar]
type MakeNginx = Callable[..., Nginx]
