"""Decides when the external metrics of the live runs are queried, and hands on the answers."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from counterfault.proxy.analysis.external.readings import ExternalReadings, When
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Run
from counterfault.proxy.experiments.steady_state import Metric, Prometheus
from counterfault.proxy.supervisor.metric_source import MetricSource, NoAnswer
from counterfault.proxy.supervisor.prometheus_source import configured_source
from counterfault.proxy.supervisor.supervisor import TICK, Supervisor

log = logging.getLogger("counterfault")

# Seconds between two queries for a metric; each asks for both cohorts at once.
EVERY = 5.0
# Queries ask about the moment so many seconds ago: by now its scrape has been stored whole, or
# not at all. Both cohorts' counts must be of the same scrapes.
LAG = 2.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Question:
    """One metric of a run, at one moment."""

    run: Run
    metric: Metric
    prometheus: Prometheus
    when: When
    service: str

    def query(self, cohort: Cohort) -> str:
        """Return the query for a cohort, in PromQL."""
        return self.prometheus.asked(
            {
                "cohort": cohort,
                "experiment": self.run.experiment,
                "run": str(self.run.run),
                "service": self.service,
            }
        )


class PrometheusPoller:
    """Finds the queries that are due, sends them, and hands the answers to `readings`."""

    def __init__(
        self,
        service: str,
        source: Callable[[], MetricSource | None],
        live: Callable[[], Iterable[tuple[Run, Experiment]]],
        readings: ExternalReadings,
        failed: Callable[[str, BaseException], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Poll for the runs that `live` returns, with what `source` returns at that time.

        Args:
            service: The service of this sidecar, which a query can name.
            source: Returns the source in use; a reload changes it, None takes it away.
            live: Returns the live runs with their experiments.
            readings: Takes the answers, and the failures to get one.
            failed: Called with every error of our own.
            clock: Returns monotonic seconds.
            wall: Returns Unix seconds.
        """
        self._service, self._source, self._live = service, source, live
        self._readings, self._failed = readings, failed
        self._clock, self._wall = clock, wall
        self._asked: dict[tuple[str, str], float] = {}
        self._under_way: set[tuple[str, str]] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def due(self) -> list[Question]:
        """Return the queries that are due now, and take them as sent."""
        now = self._clock()
        when = When(now - LAG, self._wall() - LAG)
        live = {
            (run.experiment, metric.name): Question(run, metric, prometheus, when, self._service)
            for run, experiment in self._live()
            for metric in experiment.steady_state
            if (prometheus := metric.prometheus) is not None
        }
        self._asked = {key: at for key, at in self._asked.items() if key in live}
        found = [
            key
            for key in live
            if key not in self._under_way and now - self._asked.get(key, now - EVERY) >= EVERY
        ]
        self._asked |= dict.fromkeys(found, now)
        self._under_way.update(found)
        return [live[key] for key in found]

    async def ask(self, question: Question) -> None:
        """Send one query for both cohorts and hand on the answers; raises CancelledError alone."""
        try:
            async with self._turns:
                await self._ask(question)
        except Exception as e:
            self._failed("supervisor", e)
        finally:
            self._under_way.discard((question.run.experiment, question.metric.name))

    async def _ask(self, question: Question) -> None:
        run, metric = question.run, question.metric
        before = self._readings.why(run, metric)
        source = self._source()
        if source is None:  # a reload has taken it away, and the metric with it
            return
        try:
            queries = {cohort: question.query(cohort) for cohort in ENROLLED}
            both = await source.query(queries, question.when.wall)
        except NoAnswer as e:
            self._readings.failed(run, metric, str(e), question.when)
        else:
            self._readings.answered(run, metric, both, question.when)
        after = self._readings.why(run, metric)
        if after and not before:
            log.warning("%s: no data for %s: %s", run.experiment, metric.name, after)
        elif before and not after:
            log.info("%s: data for %s again", run.experiment, metric.name)


async def poll(supervisor: Supervisor) -> None:
    """Poll until cancelled, for every live run that has an external metric."""
    work = PrometheusPoller(
        supervisor.config.sidecar.service,
        lambda: configured_source(supervisor.config),
        supervisor.live,
        supervisor.readings,
        supervisor.failed,
    )
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                for question in work.due():
                    tasks.create_task(work.ask(question))
            except Exception as e:
                supervisor.failed("supervisor", e)
            await asyncio.sleep(TICK)
