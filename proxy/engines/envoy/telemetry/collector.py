"""Collects Envoy's telemetry: lines of enrolled exchanges, counters of others, log messages."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.config import native_faults
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.telemetry.access_log import (
    AccessLogCounter,
    parse_begin,
    parse_line,
)
from counterfault.proxy.engines.envoy.telemetry.admin_stats import PATTERN, rows
from counterfault.proxy.engines.envoy.telemetry.line_pipe import LinePipe
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.keys import InternalErrorKey, KeptEpochs, Rows
from counterfault.proxy.values.addresses import HostPort

log = logging.getLogger("counterfault")

# Seconds between two reports of counted lines, and between two queries of Envoy's own counters.
_REPORT_PERIOD = 0.1
_QUERY_PERIOD = 0.5
_MOST_MESSAGES = 20


class TelemetryCollector:
    """Reports all counts of Envoy's exchanges, and keeps the latest messages of its log."""

    def __init__(
        self,
        admin: EnvoyAdmin,
        report: Callable[[str, Rows], None],
        gone: Callable[[str], None],
        incarnation: Callable[[], str],
    ) -> None:
        """Prepare the collector; `open` gives it Envoy's pipes.

        Args:
            admin: The admin endpoint.
            report: Called with an incarnation and its counts.
            gone: Called with an incarnation that reports no more.
            incarnation: Returns the name of the present Envoy process, which the counters of the
                admin endpoint belong to.
        """
        self._admin, self._report, self._incarnation = admin, report, incarnation
        self._gone = gone
        self._counts = Counters()
        self._ended_envoys = 0
        self._lines = AccessLogCounter(self._counts)
        self._pipes: list[LinePipe] = []
        self._messages: deque[str] = deque(maxlen=_MOST_MESSAGES)

    def open(self, lines: int, begins: int, messages: int) -> None:
        """Read these descriptors from now on.

        Args:
            lines: The access log's pipe.
            begins: The pipe with the begins of exchanges.
            messages: The pipe of Envoy's log.
        """
        begun = LinePipe(begins, self._count_begin)
        # An exchange's begin was written before its end, so that it is there when that is read.
        ended = LinePipe(lines, self._count_line, begun.read)
        self._pipes = [begun, ended, LinePipe(messages, self._keep_message)]

    def close(self) -> None:
        """Stop reading; what is still in the pipes is for the next supervisor."""
        for pipe in self._pipes:
            pipe.close()

    def finish(self) -> None:
        """Read and report what is still in the pipes, then stop reading."""
        for pipe in self._pipes:
            pipe.read()
        self.close()
        self._report_counts()

    def expect(
        self, config: Config, runs: Mapping[str, RunStatus], workers: Mapping[str, HostPort]
    ) -> None:
        """Expect lines of these runs, and forget the counts of all others.

        Args:
            config: The configuration.
            runs: The status of each run, by the name of its experiment.
            workers: The addresses of the workers, by the name of the listener whose detours they
                serve.
        """
        addresses = {name: f"{host}:{port}" for name, (host, port) in workers.items()}
        for experiment in config.experiments:
            if (run := runs.get(experiment.name)) is not None:
                detours = {at: addresses.get(at, "") for at in native_faults.detours(experiment)}
                self._lines.expect(experiment, run.epoch, detours)
        self._lines.forget_others(KeptEpochs((name, run.epoch) for name, run in runs.items()))

    def envoy_ended(self) -> None:
        """Report the rest of what Envoy wrote; what it had under way was ended by us.

        From now on lines count for another incarnation, which has nothing under way.
        """
        for pipe in self._pipes:
            pipe.read()
        self._report_counts()
        self._gone(self._lines_incarnation)
        self._ended_envoys += 1
        self._counts = Counters()
        self._lines.count_into(self._counts)

    @property
    def _lines_incarnation(self) -> str:
        """Of the counts that are made here from lines."""
        return f"envoy-lines-{self._ended_envoys}"

    def count_error(self, where: str) -> None:
        """Count an internal error."""
        self._counts.add(InternalErrorKey(where))

    def reasons(self) -> str:
        """Return the last three errors in Envoy's log, and forget all its messages."""
        for pipe in self._pipes:
            pipe.read()
        errors = [m for m in self._messages if "reject" in m.lower() or "error" in m.lower()]
        self._messages.clear()
        return "; ".join(errors[-3:])

    async def report_lines(self) -> None:
        """Report the counts of lines until the task is cancelled."""
        while True:
            self._report_counts()
            await asyncio.sleep(_REPORT_PERIOD)

    async def report_admin_stats(self) -> None:
        """Fetch and report Envoy's own counters until the task is cancelled."""
        while True:
            with suppress(OSError, ValueError):
                incarnation = self._incarnation()
                self._report(incarnation, rows(await self._admin.json_stats(PATTERN)))
            await asyncio.sleep(_QUERY_PERIOD)

    def _report_counts(self) -> None:
        changed = self._counts.take_changed()
        if changed:
            self._report(self._lines_incarnation, changed)

    def _count_line(self, text: bytes) -> None:
        try:
            line = parse_line(text)
            if line is not None:
                self._lines.add(line)
        except (ValueError, LookupError) as e:
            self.count_error("observe")
            log.error("observe: %s: %r", e, text[:200])

    def _count_begin(self, text: bytes) -> None:
        try:
            self._lines.begin(parse_begin(text))
        except (ValueError, LookupError) as e:
            self.count_error("observe")
            log.error("observe: %s: %r", e, text[:200])

    def _keep_message(self, text: bytes) -> None:
        message = text.decode("utf-8", "replace").strip()
        if message:
            self._messages.append(message)
            log.warning("envoy: %s", message)
