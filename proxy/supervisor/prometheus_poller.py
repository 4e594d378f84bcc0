"""Queries a Prometheus server for the external metrics of the live runs."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httputil import HTTPInputError
from tornado.iostream import UnsatisfiableReadError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from counterfault.proxy.analysis.external.prometheus_response import (
    Answer,
    NoPrometheusAnswer,
    line,
    parse_response,
)
from counterfault.proxy.analysis.external.readings import ExternalReadings, When
from counterfault.proxy.config.files import read_regular_file, reason_of
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import PrometheusServer
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Run
from counterfault.proxy.experiments.steady_state import Metric, Prometheus
from counterfault.proxy.supervisor.supervisor import TICK, Supervisor

log = logging.getLogger("counterfault")

# Each metric is asked for so often, in seconds, both cohorts at once.
EVERY = 5.0
# The moment that is asked about: by then a scrape has been stored whole, or not begun. Both
# cohorts' counts must be of the same scrapes.
LAG = 2.0
_AT_ONCE = 4
_MOST_BODY = 4 << 20
_MOST_TOKEN = 16 << 10
# What keeps a client from having an answer: the network, the certificate, or no HTTP.
_BROKEN = (HTTPClientError, HTTPInputError, UnsatisfiableReadError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Question:
    """One metric of a run, at one moment."""

    run: Run
    metric: Metric
    outside: Prometheus
    when: When
    service: str

    def query(self, cohort: Cohort) -> str:
        """What is asked for a cohort, in PromQL."""
        return self.outside.asked(
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
        config: Callable[[], Config],
        live: Callable[[], Iterable[tuple[Run, Experiment]]],
        readings: ExternalReadings,
        failed: Callable[[str, BaseException], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Poll for the runs that `live` returns, with the server that `config` names.

        Args:
            config: Returns the configuration in use; a reload changes it.
            live: Returns the live runs with their experiments.
            readings: Takes the answers, and the failures to get one.
            failed: Called with every error of our own.
            clock: Returns monotonic seconds.
            wall: Returns Unix seconds.
        """
        self._config, self._live = config, live
        self._readings, self._failed = readings, failed
        self._clock, self._wall = clock, wall
        self._asked: dict[tuple[str, str], float] = {}
        self._under_way: set[tuple[str, str]] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def due(self) -> list[Question]:
        """Return the queries that are due now, and take them as sent."""
        now, service = self._clock(), self._config().sidecar.service
        when = When(now - LAG, self._wall() - LAG)
        live = {
            (run.experiment, metric.name): Question(run, metric, outside, when, service)
            for run, experiment in self._live()
            for metric in experiment.steady_state
            if (outside := metric.prometheus) is not None
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
        server = self._config().sidecar.prometheus
        if server is None:  # a reload has taken it away, and the metric with it
            return
        try:
            both = await _answers(server, self._config().directory, question)
        except NoPrometheusAnswer as e:
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
        lambda: supervisor.config, supervisor.live, supervisor.readings, supervisor.failed
    )
    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                for question in work.due():
                    tasks.create_task(work.ask(question))
            except Exception as e:
                supervisor.failed("supervisor", e)
            await asyncio.sleep(TICK)


async def _answers(
    server: PrometheusServer, directory: Path, question: Question
) -> dict[Cohort, Answer]:
    """What the server says of both cohorts, at the same moment. Raises NoAnswer."""
    token = None
    if server.token_file is not None:
        token = await asyncio.to_thread(_token, directory / server.token_file)
    ca = None if server.ca is None else directory / server.ca
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=_MOST_BODY)
    try:
        requests = (
            _request(server, question.query(cohort), question.when.wall, token, ca)
            for cohort in ENROLLED
        )
        # Both are waited for, even if the first has failed: none is left behind.
        said = await asyncio.gather(*(_answer(client, r) for r in requests), return_exceptions=True)
        return {cohort: _whole(one) for cohort, one in zip(ENROLLED, said, strict=True)}
    finally:
        client.close()


def _whole(said: Answer | BaseException) -> Answer:
    if isinstance(said, BaseException):
        raise said
    return said


def _token(file: Path) -> str:
    try:
        token = read_regular_file(file, _MOST_TOKEN).decode("ascii").strip()
    except OSError as e:
        raise NoPrometheusAnswer(f"token_file: {reason_of(e)}") from e
    except UnicodeDecodeError:
        token = ""
    if not token.isprintable() or not token or " " in token:
        raise NoPrometheusAnswer("token_file: holds no token")
    return token


def _request(
    server: PrometheusServer, query: str, at: float, token: str | None, ca: Path | None
) -> HTTPRequest:
    return HTTPRequest(
        f"{server.url}/api/v1/query",
        method="POST",
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            **({} if token is None else {"Authorization": f"Bearer {token}"}),
        },
        body=urlencode({"query": query, "time": f"{at:.3f}"}),
        connect_timeout=server.timeout,
        request_timeout=server.timeout,
        follow_redirects=False,
        decompress_response=False,  # nothing bounds what comes out
        ca_certs=None if ca is None else str(ca),
    )


async def _answer(client: AsyncHTTPClient, request: HTTPRequest) -> Answer:
    try:
        said = await client.fetch(request, raise_error=False)
    except _BROKEN as e:
        raise NoPrometheusAnswer(line(e) or type(e).__name__) from e
    return parse_response(said.code, said.body or b"")
