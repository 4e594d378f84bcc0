"""What is compared: stock mitmdump, the engine by itself, sidecars; each with fresh processes."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trustme

from counterfault.proxy.engines.envoy.runtime.binary import find_envoy
from counterfault.proxy.experiments.cohorts import Arcs, Cohort, first_enrolment, salt_of
from tests.bench.bare_envoy import configuration
from tests.support.programs import Sidecar, free_port, until

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that has started."""

    port: int
    secure: int
    """Its port for TLS."""
    pids: tuple[int, ...]
    """The processes that traffic goes through."""
    enrolled: Callable[[], float]
    """The share of its requests that were in an experiment."""
    cohort: Callable[[int], Cohort | None] = lambda number: None
    """Of a user; None where there are no cohorts."""


type Setup = Callable[[Path, str], AbstractContextManager[Running]]


@contextmanager
def stock(directory: Path, upstream: str) -> Iterator[Running]:
    """mitmdump as its users run it."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("mitmdump")),
        *("--quiet", "--mode", f"reverse:{upstream}"),
        *("--listen-host", "127.0.0.1", "--listen-port", str(port)),
        *("--set", "flow_detail=0", "--set", f"confdir={directory}"),
        *("--scripts", str(_HERE / "stock_addon.py")),
    ]
    with _program(command, directory, port) as pid:
        yield Running(port, port, (pid,), lambda: 0.0)


@contextmanager
def bare(directory: Path, upstream: str) -> Iterator[Running]:
    """A worker's engine without assignment, faults and metrics."""
    port, secure = free_port(), free_port()
    certificate(directory)
    command = [
        *(sys.executable, "-O", "-m", "tests.bench.bare_engine"),
        *(upstream, str(port), str(secure)),
        *(str(directory / "cert.pem"), str(directory / "key.pem")),
    ]
    with _program(command, directory, secure) as pid:
        yield Running(port, secure, (pid,), lambda: 0.0)


@contextmanager
def bare_envoy(directory: Path, upstream: str) -> Iterator[Running]:
    """Envoy with its own fault filter."""
    directory.mkdir(parents=True, exist_ok=True)
    port, file = free_port(), directory / "envoy.json"
    file.write_text(json.dumps(configuration(port, upstream)))
    command = [find_envoy(None, directory), "-c", str(file), "--concurrency", "1", "-l", "error"]
    with _program([*command, "--disable-hot-restart"], directory, port) as pid:
        yield Running(port, port, (pid,), lambda: 0.0)


def sidecar(
    experiments: int,
    share: str = "1%",
    workers: int = 1,
    engine: str = "mitmproxy",
    detour: bool = False,
) -> Setup:
    """A sidecar whose running experiments meet users, but no request of the benchmark."""
    return _Sidecar(experiments, share, workers, engine, detour)


@dataclass(frozen=True, slots=True)
class _Sidecar:
    experiments: int
    share: str
    workers: int
    engine: str
    detour: bool
    checkout: Path | None = None
    """The checkout whose counterfault is run; None is this one."""

    @contextmanager
    def __call__(self, directory: Path, upstream: str) -> Iterator[Running]:
        certificate(directory)
        secure = free_port()
        tls = {"cert": "cert.pem", "key": "key.pem"}
        listener = {"listen": f"127.0.0.1:{secure}", "upstream": upstream, "tls": tls}
        settings = {
            "listeners": {"secure": listener},
            "limits": {"enrolled": "100%", "drain": "1s"},
            "unit": [{"header": "x-user-id"}],
            "workers": self.workers,
            "engine": self.engine,
        }
        made = Sidecar(directory, upstream, settings)
        if self.checkout is not None:
            made.command, made.cwd = [str(command_of(self.checkout))], directory
        names = [f"slow-orders-{i}" for i in range(self.experiments)]
        for name in names:
            made.experiment(name, **_experiment(self.share, self.detour))
        try:
            made.start()
            until(lambda: all(made.state(name) == "running" for name in names))
            until(lambda: len(made.workers()) == self.workers + self.detour and made.acts())
            yield Running(
                made.port,
                secure,
                tuple(made.workers()),
                lambda: _enrolled(made),
                _cohort(names, float(self.share[:-1]) / 100),
            )
        finally:
            made.stop()


def _cohort(names: list[str], share: float) -> Callable[[int], Cohort | None]:
    arcs = tuple(Arcs(name, salt_of(name, 1), share, share) for name in sorted(names))
    enrolment_of = first_enrolment(arcs)

    def of(number: int) -> Cohort | None:
        found = enrolment_of(b"user-%d" % number)
        return found.cohort if found else Cohort.BYSTANDER

    return of if names else lambda number: None


def _experiment(share: str, detour: bool) -> dict[str, Any]:
    when = {"when": "after"} if detour else {}
    fault = {"at": "inbound", "match": {"path": "/another"}, "latency": {"fixed": "1s"}, **when}
    return {
        "cohorts": {"experiment": share, "control": share},
        "faults": [fault],
        "steady_state": [
            {"name": "success", "at": "inbound", "success_rate": {"drop": "50pp"}},
            {"name": "p99", "at": "inbound", "latency": {"quantile": 0.99, "rise": "900%"}},
        ],
    }


def _enrolled(made: Sidecar) -> float:
    everybody = made.metric("counterfault_requests_total")
    bystanders = made.metric("counterfault_requests_total", cohort="bystander")
    return 1 - bystanders / everybody if everybody else 0.0


SETUPS: dict[str, tuple[str, Setup]] = {
    "stock": ("stock mitmdump with an addon", stock),
    "bare": ("bare engine", bare),
    "none": ("sidecar, no experiment", sidecar(0)),
    "one": ("sidecar, 1 experiment of 1 % + 1 %", sidecar(1)),
    "hundred": ("sidecar, 100 of 0.05 % + 0.05 %", sidecar(100, "0.05%")),
    "all": ("sidecar, 1 experiment of 50 % + 50 %", sidecar(1, "50%")),
    "two": ("sidecar, 1 experiment, 2 workers", sidecar(1, workers=2)),
    "bare-envoy": ("bare Envoy, its own fault filter", bare_envoy),
    "envoy": ("engine: envoy, 1 of 1 % + 1 %", sidecar(1, engine="envoy")),
    "envoy-none": ("engine: envoy, no experiment", sidecar(0, engine="envoy")),
    "envoy-detour": (
        "engine: envoy, 1 % + 1 % take a detour",
        sidecar(1, engine="envoy", detour=True),
    ),
}

_BEFORE = "-before"


def of_checkout(name: str, checkout: Path) -> Setup | None:
    """A sidecar as another checkout runs it, which has its environment in .venv.

    None for a setup that is no sidecar: it would be the same there.
    """
    setup = SETUPS[name][1]
    return replace(setup, checkout=checkout) if isinstance(setup, _Sidecar) else None


def command_of(checkout: Path) -> Path:
    """The command `counterfault` of a checkout."""
    return checkout / ".venv" / "bin" / "counterfault"


def here(name: str) -> str:
    """The name of a setup in this checkout."""
    return name.removesuffix(_BEFORE)


def before(name: str) -> str:
    """The name of the same setup in the other checkout."""
    return name + _BEFORE


def label(name: str) -> str:
    """What the table calls a setup, in either checkout."""
    text = SETUPS[here(name)][0]
    return text if name == here(name) else f"before: {text}"


def certificate(directory: Path) -> None:
    """Write cert.pem and key.pem for 127.0.0.1."""
    directory.mkdir(parents=True, exist_ok=True)
    made = trustme.CA().issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(directory / "key.pem")
    for pem in made.cert_chain_pems:
        pem.write_to_path(directory / "cert.pem", append=True)


@contextmanager
def _program(command: list[str], directory: Path, port: int) -> Iterator[int]:
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=_ROOT, stdout=output, stderr=output)
    try:
        until(lambda: process.poll() is not None or _listens(port))
        if process.poll() is not None:
            raise RuntimeError(f"{Path(command[0]).name} has ended: {log.read_text()}")
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
