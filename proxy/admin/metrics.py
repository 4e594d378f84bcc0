"""The Prometheus metrics: all series of the configuration, even before they have counted."""

import asyncio
from collections.abc import Iterator
from importlib.metadata import version
from itertools import accumulate, product
from platform import python_version

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from counterfault import __version__
from counterfault.proxy.admin.run_metrics import of_runs
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.measurement.exchanges import CODES
from counterfault.proxy.measurement.keys import (
    RESULTS,
    DurationKey,
    DurationSumKey,
    FaultKey,
    InternalErrorKey,
    RequestKey,
)
from counterfault.proxy.supervisor.sidecar_state import SidecarState
from counterfault.proxy.values.buckets import DURATION_BUCKETS

# The parts of counterfault that count errors of their own: the values of the label `where`.
WHERE = ("assign", "inject", "observe", "protocol", "history", "supervisor", "admin")

_BOUNDS = (*map(floatToGoString, DURATION_BUCKETS), "+Inf")
_BUILD = {"version": __version__, "python": python_version(), "mitmproxy": version("mitmproxy")}


def render(sidecar: SidecarState, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics and their content type, in the format that an Accept header prefers."""
    registry = CollectorRegistry()
    registry.register(MetricsCollector(sidecar))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # prometheus_client cannot parse versions such as `1.x`
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


class MetricsCollector(Collector):
    """Collects the supervisor's counts as metric families; traffic adds no series."""

    def __init__(self, sidecar: SidecarState) -> None:
        """Collect what this supervisor has counted."""
        self._sidecar = sidecar
        self._service = sidecar.config.sidecar.service
        self._experiments = sidecar.config.experiments
        self._get = sidecar.totals.get

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        yield self._requests()
        yield self._durations()
        yield self._faults()
        yield self._states()
        yield from of_runs(self._sidecar)
        yield self._internal()
        yield self._tasks()
        yield from self._gauges()
        yield InfoMetricFamily(
            "counterfault_build",
            "The versions in use; always 1.",
            {"service": self._service, **_BUILD},
        )

    def _groups(self) -> Iterator[tuple[str, str, str]]:
        """Yield each listener with each experiment's cohorts, and with the bystanders."""
        enrolled = product((e.name for e in self._experiments), ENROLLED)
        groups = [("", Cohort.BYSTANDER), *enrolled]
        for listener in self._sidecar.config.sidecar.listeners:
            for experiment, cohort in groups:
                yield listener, experiment, cohort

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "counterfault_requests",
            "Exchanges that have ended, by status class; error: the client got no whole answer.",
            labels=("service", "listener", "experiment", "cohort", "code"),
        )
        for group, code in product(self._groups(), CODES):
            value = self._get(RequestKey(*group, code))
            family.add_metric((self._service, *group, code), value)
        return family

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            "counterfault_request_duration_seconds",
            "From the request's head to the answer's last byte, faults included.",
            labels=("service", "listener", "experiment", "cohort"),
        )
        for group in self._groups():
            cells = (self._get(DurationKey(*group, i)) for i in range(len(_BOUNDS)))
            buckets = list(zip(_BOUNDS, accumulate(cells), strict=True))
            total = self._get(DurationSumKey(*group))
            family.add_metric((self._service, *group), buckets, total)
        return family

    def _faults(self) -> Metric:
        family = CounterMetricFamily(
            "counterfault_faults",
            "Faults by what became of them; overflow: a limit was reached and the request passed.",
            labels=("service", "experiment", "listener", "fault", "result"),
        )
        for e in self._experiments:
            rules = dict.fromkeys((e.name, rule.at, rule.fault.name) for rule in e.faults)
            for (name, listener, fault), result in product(rules, RESULTS):
                value = self._get(FaultKey(name, listener, fault, result))
                family.add_metric((self._service, name, listener, fault, result), value)
        return family

    def _states(self) -> Metric:
        family = GaugeMetricFamily(
            "counterfault_experiment_state",
            "1 for the state that the present run is in.",
            labels=("service", "experiment", "state"),
        )
        for e, state in product(self._experiments, State):
            present = self._sidecar.reader.run(e).state
            family.add_metric((self._service, e.name, state), float(state is present))
        return family

    def _internal(self) -> Metric:
        family = CounterMetricFamily(
            "counterfault_internal_errors",
            "Errors of our own; traffic passed all the same.",
            labels=("service", "where"),
        )
        for where in WHERE:
            family.add_metric((self._service, where), self._get(InternalErrorKey(where)))
        return family

    def _tasks(self) -> Metric:
        family = GaugeMetricFamily(
            "counterfault_tasks",
            "Python's asyncio tasks: as many as before whenever nothing is under way.",
            labels=("service", "process"),
        )
        for process, count in (
            ("supervisor", _own_tasks()),
            ("workers", self._sidecar.engine.tasks),
        ):
            family.add_metric((self._service, process), count)
        return family

    def _gauges(self) -> Iterator[Metric]:
        s = self._sidecar
        yield self._gauge("faults_active", "Faults under way.", s.faults_active)
        yield self._gauge(
            "config_last_reload_successful",
            "Whether the configuration on disk is the one in use.",
            s.reload_error is None,
        )
        yield self._gauge(
            "config_last_reload_timestamp_seconds",
            "When the configuration in use was loaded, in Unix seconds.",
            s.reloaded_at,
        )
        yield self._gauge(
            "lease_remaining_seconds",
            "How long faults would go on without the supervisor.",
            s.lease_remaining,
        )

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"counterfault_{name}", text, labels=("service",))
        family.add_metric((self._service,), float(value))
        return family


def _own_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # outside of the event loop, as when the documentation is generated
        return 0
