"""`counterfault run DIR`: composes one supervisor, its data plane and its admin port; runs them."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from counterfault.proxy.admin import server
from counterfault.proxy.cli.until_done import UntilDone, obstacle
from counterfault.proxy.config.certificate_authority import CertificateAuthority
from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.engines import handover
from counterfault.proxy.engines.envoy.engine import EnvoyEngine
from counterfault.proxy.engines.fault_budget import Budget, create
from counterfault.proxy.engines.mitmproxy.pool import WorkerPool
from counterfault.proxy.engines.mitmproxy.worker_process import Report
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.report import FORMATS, exit_code, worst
from counterfault.proxy.supervisor.config_watcher import changes
from counterfault.proxy.supervisor.prometheus_poller import poll
from counterfault.proxy.supervisor.supervisor import Supervisor, ticking

log = logging.getLogger("counterfault")

# EX_CONFIG would be 78; the contract's exit code for unusable configuration is 2.
UNUSABLE = 2


def state_dir(config: Config) -> Path:
    """Return the directory of the history: as configured, else systemd's, else XDG's."""
    if config.sidecar.state_dir is not None:
        return config.directory / config.sidecar.state_dir
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.partition(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "counterfault" / config.sidecar.service


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The objects of one sidecar, composed and not yet started."""

    directory: Path
    """The state directory."""
    engine: WorkerPool | EnvoyEngine
    supervisor: Supervisor
    handover_socket: handover.HandoverSocket
    until_done: UntilDone | None
    """Waits for the runs to end; None if the sidecar runs until it is told to stop."""
    stopping: asyncio.Event
    """Set when the sidecar is to stop."""
    succeeded: asyncio.Event
    """Set when another supervisor has taken over the listeners."""


def build(config: Config, directory: Path, *, until_done: bool = False) -> Sidecar:
    """Compose a sidecar that keeps its state in `directory`. Raises OSError."""
    totals = Totals()
    socket_path = str((directory / handover.SOCKET_NAME).absolute())
    authority = CertificateAuthority(directory)
    engine = _engine(config, directory, totals, socket_path, authority)
    supervisor = Supervisor(config, directory, engine, totals)
    stopping, succeeded = asyncio.Event(), asyncio.Event()

    def give_way() -> None:
        succeeded.set()
        stopping.set()

    return Sidecar(
        directory,
        engine,
        supervisor,
        handover.HandoverSocket(directory, engine.adopt, give_way),
        UntilDone(supervisor) if until_done else None,
        stopping,
        succeeded,
    )


async def serve(config: Config, *, until_done: bool = False) -> int:
    """Run a sidecar until SIGTERM or SIGINT, or until all experiments are done.

    Returns the exit code of the command.
    """
    directory = state_dir(config)
    if until_done and (why := obstacle(config, directory)):
        print(f"counterfault: {why}", file=sys.stderr)
        return UNUSABLE
    try:
        sidecar = build(config, directory, until_done=until_done)
    except OSError as e:
        print(f"counterfault: {e}", file=sys.stderr)
        return UNUSABLE
    return await run(sidecar)


async def run(sidecar: Sidecar) -> int:
    """Start a sidecar, wait until it is to stop, and stop it. Returns the exit code."""
    try:
        api = await _start(sidecar)
    except OSError as e:
        print(f"counterfault: {e}", file=sys.stderr)
        sidecar.engine.abandon()
        sidecar.handover_socket.close()
        return UNUSABLE
    sidecar.engine.start()
    tasks = _tasks(sidecar)
    await sidecar.stopping.wait()
    if sidecar.until_done is not None:
        await sidecar.until_done.stop()
    for task in tasks:
        task.cancel()
    await _stop(sidecar, api)
    code = 0 if sidecar.until_done is None else _verdict(sidecar.until_done)
    sidecar.supervisor.close()
    sidecar.handover_socket.close()
    return code


async def _start(sidecar: Sidecar) -> server.AdminServer:
    """Take over from a predecessor and open all ports. Returns the admin port. Raises OSError."""
    supervisor, engine = sidecar.supervisor, sidecar.engine
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sidecar.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _task(reload(supervisor)))
    await handover.replace_predecessor(sidecar.directory)
    sidecar.handover_socket.open()
    await engine.inherit(supervisor.config)
    supervisor.start()
    return await server.serve(supervisor)


def _tasks(sidecar: Sidecar) -> list[asyncio.Task[None]]:
    """Start what goes on until the sidecar stops."""
    supervisor = sidecar.supervisor
    work = [ticking(supervisor), _watch(supervisor), _greet(supervisor), poll(supervisor)]
    if sidecar.until_done is not None:
        work.append(_finish(sidecar.until_done, sidecar.stopping))
    return [_task(one) for one in work]


async def _stop(sidecar: Sidecar, api: server.AdminServer) -> None:
    """Stop the data plane, or leave it to the supervisor that has taken over."""
    if sidecar.succeeded.is_set():
        log.info("another supervisor takes over")
        sidecar.engine.abandon()
    else:
        await sidecar.engine.stop(sidecar.supervisor.config.sidecar.limits.drain)
    await api.stop()


async def _finish(until_done: UntilDone, stopping: asyncio.Event) -> None:
    try:
        await until_done.wait()
    finally:
        stopping.set()


def _verdict(until_done: UntilDone) -> int:
    """Print the reports. Returns the exit code of the worst verdict."""
    records = list(until_done.records())
    print("\n".join(FORMATS["text"].render(record, None) for record in records), end="")
    return worst(exit_code(record.verdict) for record in records)


def _engine(
    config: Config,
    directory: Path,
    totals: Totals,
    socket_path: str,
    authority: CertificateAuthority,
) -> WorkerPool | EnvoyEngine:
    """Make the data plane that the configuration names. Raises OSError."""

    def pool(budget: Budget, report: Report) -> WorkerPool:
        count = config.sidecar.workers
        return WorkerPool(count, budget, report, totals.retire, socket_path, authority.pem_file)

    match config.sidecar.engine:
        case "mitmproxy":
            return pool(Budget(create()), totals.update)
        case "envoy":
            return EnvoyEngine(config, directory, pool, totals.update, totals.retire)
        case other:
            assert_never(other)


async def reload(supervisor: Supervisor) -> None:
    """Reload the configuration and log the result."""
    try:
        await supervisor.reload()
    except ConfigError as e:
        log.error("reload failed, nothing changed:\n%s", e)
    else:
        log.info("reloaded")


async def _watch(supervisor: Supervisor) -> None:
    async for _ in changes(supervisor.config.directory):
        await reload(supervisor)


async def _greet(supervisor: Supervisor) -> None:
    await supervisor.engine.wait_serving()
    sidecar = supervisor.config.sidecar
    for name, listener in sidecar.listeners.items():
        where = ", ".join(listener.upstream) or "wherever requests ask"
        log.info("%s: %s -> %s", name, listener.listen, where)
    page, metrics = sidecar.admin.listen, sidecar.admin.metrics or sidecar.admin.listen
    log.info("page http://%s/  metrics http://%s/metrics", page, metrics)


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.ensure_future(work)
