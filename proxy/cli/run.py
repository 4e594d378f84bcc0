"""`counterfault run DIR`: one supervisor, its workers and its admin port, until told to stop."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
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
    """Where runs are remembered: as configured, else systemd's, else the XDG state home."""
    if config.sidecar.state_dir is not None:
        return config.directory / config.sidecar.state_dir
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.partition(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "counterfault" / config.sidecar.service


async def serve(config: Config, *, until_done: bool = False) -> int:
    """Run until SIGTERM or SIGINT, or until all experiments are done; the exit code."""
    totals, directory = Totals(), state_dir(config)
    if until_done and (why := obstacle(config, directory)):
        print(f"counterfault: {why}", file=sys.stderr)
        return UNUSABLE
    meeting = str((directory / handover.SOCKET_NAME).absolute())
    authority = CertificateAuthority(directory)
    try:
        engine = _engine(config, directory, totals, meeting, authority)
    except OSError as e:
        print(f"counterfault: {e}", file=sys.stderr)
        return UNUSABLE
    supervisor = Supervisor(config, directory, engine, totals)
    stopping, succeeded = asyncio.Event(), asyncio.Event()

    def abdicate() -> None:
        succeeded.set()
        stopping.set()

    door = handover.HandoverSocket(directory, engine.adopt, abdicate)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _task(reload(supervisor)))
    try:
        await handover.replace_predecessor(directory)
        door.open()
        await engine.inherit(config)
        supervisor.start()
        api = await server.serve(supervisor)
    except OSError as e:
        print(f"counterfault: {e}", file=sys.stderr)
        engine.abandon()
        door.close()
        return UNUSABLE
    engine.start()
    tasks = [_task(ticking(supervisor)), _task(_watch(supervisor)), _task(_greet(supervisor))]
    tasks.append(_task(poll(supervisor)))
    errand = UntilDone(supervisor)
    if until_done:
        tasks.append(_task(_finish(errand, stopping)))
    await stopping.wait()
    if until_done:
        await errand.stop()
    for task in tasks:
        task.cancel()
    if succeeded.is_set():
        log.info("another supervisor takes over")
        engine.abandon()
    else:
        await engine.stop(supervisor.config.sidecar.limits.drain)
    await api.stop()
    code = _verdict(errand) if until_done else 0
    supervisor.close()
    door.close()
    return code


async def _finish(errand: UntilDone, stopping: asyncio.Event) -> None:
    try:
        await errand.wait()
    finally:
        stopping.set()


def _verdict(errand: UntilDone) -> int:
    """Print the reports; the exit code of the worst verdict."""
    records = list(errand.records())
    print("\n".join(FORMATS["text"].render(record, None) for record in records), end="")
    return worst(exit_code(record.verdict) for record in records)


def _engine(
    config: Config, directory: Path, totals: Totals, meeting: str, authority: CertificateAuthority
) -> WorkerPool | EnvoyEngine:
    """The data plane that the configuration asks for. Raises OSError."""

    def pool(budget: Budget, report: Report) -> WorkerPool:
        count = config.sidecar.workers
        return WorkerPool(count, budget, report, totals.retire, meeting, authority.pem_file)

    match config.sidecar.engine:
        case "mitmproxy":
            return pool(Budget(create()), totals.update)
        case "envoy":
            return EnvoyEngine(config, directory, pool, totals.update, totals.retire)
        case other:
            assert_never(other)


async def reload(supervisor: Supervisor) -> None:
    """Reload and say in the log what became of it."""
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
