"""What Envoy tells: lines about the enrolled, sums of all others, and what it complains of."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.telemetry.access_log import AccessLogCounter, parsed
from counterfault.proxy.engines.envoy.telemetry.admin_stats import WANTED, rows
from counterfault.proxy.engines.envoy.telemetry.line_pipe import LinePipe
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.keys import InternalErrorKey, KeptEpochs, Rows
from counterfault.proxy.values.addresses import HostPort

log = logging.getLogger("counterfault")

# How often counts are handed to the supervisor, and Envoy's own are asked for.
BEAT = 0.1
_ASK = 0.5
_OWN = "envoy"


class TelemetryCollector:
    """Hands all counts to `cells`; `incarnation` says whose the sums are at the moment."""

    def __init__(
        self, admin: EnvoyAdmin, cells: Callable[[str, Rows], None], incarnation: Callable[[], str]
    ) -> None:
        self._admin, self._cells, self._incarnation = admin, cells, incarnation
        self._tally = Counters()
        self._count = AccessLogCounter(self._tally)
        self._pipes: list[LinePipe] = []
        self._said: deque[str] = deque(maxlen=20)

    def open(self, lines: int, complaints: int) -> None:
        """Listen to these pipes."""
        self._pipes = [LinePipe(lines, self._line), LinePipe(complaints, self._hear)]

    def close(self) -> None:
        """Leave what is still to be heard to whoever comes next."""
        for pipe in self._pipes:
            pipe.close()

    def finish(self) -> None:
        """Hear the rest, and hand it over."""
        for pipe in self._pipes:
            pipe.read()
        self.close()
        self._report()

    def expect(
        self, config: Config, runs: Mapping[str, RunStatus], workers: Mapping[str, HostPort]
    ) -> None:
        """Lines of these runs may come from now on; `workers`: where detours lead."""
        addresses = {name: f"{host}:{port}" for name, (host, port) in workers.items()}
        for experiment in config.experiments:
            if (run := runs.get(experiment.name)) is not None:
                detours = {at: addresses.get(at, "") for at in native_faults.detours(experiment)}
                self._count.expect(experiment, run.epoch, detours)
        self._count.forget_others(KeptEpochs((name, run.epoch) for name, run in runs.items()))

    def failed(self, where: str) -> None:
        """Count an error."""
        self._tally.add(InternalErrorKey(where))

    def reasons(self) -> str:
        """What Envoy has complained of lately; it is told once."""
        for pipe in self._pipes:
            pipe.read()
        bad = [said for said in self._said if "reject" in said.lower() or "error" in said.lower()]
        self._said.clear()
        return "; ".join(bad[-3:])

    async def report_often(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(BEAT)

    async def ask(self) -> None:
        """Fetch Envoy's own counts, for ever."""
        while True:
            with suppress(OSError, ValueError):
                incarnation = self._incarnation()
                self._cells(incarnation, rows(await self._admin.numbers(WANTED)))
            await asyncio.sleep(_ASK)

    def _report(self) -> None:
        changed = self._tally.take_changed()
        if changed:
            self._cells(_OWN, changed)

    def _line(self, text: bytes) -> None:
        try:
            line = parsed(text)
            if line is not None:
                self._count.add(line)
        except (ValueError, LookupError) as e:
            self.failed("observe")
            log.error("observe: %s: %r", e, text[:200])

    def _hear(self, text: bytes) -> None:
        said = text.decode("utf-8", "replace").strip()
        if said:
            self._said.append(said)
            log.warning("envoy: %s", said)
