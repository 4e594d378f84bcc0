"""Each event counts once, whenever the phase changes, a process dies or a report is late."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.lifecycle import Epoch, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.exchanges import Measured, begin_exchange, count_exchange
from counterfault.proxy.measurement.keys import (
    DoseKey,
    FaultResult,
    KeptEpochs,
    OpenKey,
    SteadyKey,
)
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.under_way import SLOT

PHASES = (State.BASELINE, State.RUNNING, State.RECOVERING)
OK = Metric.model_validate({"name": "ok", "at": "in", "success_rate": {"drop": "1pp"}})
VISITS = Metric.model_validate({"name": "visits", "at": "in", "rate": {"drop": "5%"}})
ALL = Metric.model_validate(
    {"name": "all", "at": "in", "match": {"status": "any"}, "rate": {"drop": "5%"}}
)
METRICS = (OK, VISITS, ALL)
RUNNING, RECOVERING = Epoch("1.0.running"), Epoch("1.0.recovering")


def good(epoch: Epoch, replicate: int) -> SteadyKey:
    return SteadyKey("x", epoch, "ok", "experiment", replicate, "good")


def test_what_ends_after_its_phase_is_added_to_what_ended_before() -> None:
    counts, totals = Counters(), Totals()
    open_keys = []
    for replicate in range(64):
        for _ in range(13):
            measured = (Measured(OK, RUNNING),)
            key = begin_exchange(counts, "x", RUNNING, "experiment", replicate, measured, 0.0)
            open_keys.append((replicate, key))
    for replicate, key in open_keys[::2]:
        counts.add(good(RUNNING, replicate))
        counts.end(key)
    totals.update("w", counts.take_changed())
    counts.forget_others(KeptEpochs([("x", RECOVERING)]))
    totals.update("w", counts.take_changed())
    for replicate, key in open_keys[1::2]:
        counts.add(good(RUNNING, replicate))
        counts.end(key)
    totals.update("w", counts.take_changed())
    assert totals.sample("x", RUNNING, "ok", "experiment", 2).events == 64 * 13
    assert not any(isinstance(key, SteadyKey) for key in counts.counts)


def test_what_was_counted_since_the_last_report_is_reported_before_it_is_forgotten() -> None:
    counts, totals = Counters(), Totals()
    for replicate in range(64):
        counts.add(good(RUNNING, replicate))
    counts.forget_others(KeptEpochs([("x", RECOVERING)]))
    totals.update("w", counts.take_changed())
    assert totals.sample("x", RUNNING, "ok", "experiment", 2).events == 64
    assert not counts.counts


def test_late_rows_of_a_revision_that_is_not_kept_are_ignored() -> None:
    totals = Totals()
    totals.forget_others(KeptEpochs([("x", Epoch("2.0.baseline"))]))
    totals.update("w", [(good(RUNNING, 3), 5.0)])
    totals.update("w", [(OpenKey("x", RUNNING, "ok", "experiment", 3, 1), 5.0)])
    assert totals.sample("x", RUNNING, "ok", "experiment", 2).events == 0
    assert totals.open.oldest_slot("x", RUNNING) is None


def test_what_a_dead_process_had_under_way_is_counted_apart() -> None:
    totals = Totals()
    key = OpenKey("x", RUNNING, "ok,visits", "control", 3, 8)
    totals.update("w", [(key, 2.0), (key._replace(replicate=5), 1.0)])
    assert totals.open.oldest_slot("x", RUNNING) == 8
    totals.retire("w")
    assert totals.open.oldest_slot("x", RUNNING) is None
    assert totals.open.ended_by_us("x", RUNNING, "visits", "control") == 3
    assert totals.open.ended_by_us("x", RUNNING, "visits", "experiment") == 0


@dataclass
class Worker:
    """A process, and what a client of it would know."""

    number: int
    epoch: Epoch
    counters: Counters = field(default_factory=Counters)
    open: list[tuple[OpenKey, str, int]] = field(default_factory=list)
    unreported: Counter[tuple[object, ...]] = field(default_factory=Counter)
    open_at_report: list[tuple[OpenKey, str, int]] = field(default_factory=list)


class Conservation(RuleBasedStateMachine):
    """Begins, ends, reports, phases, edits and deaths; a model counts for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.totals = Totals()
        self.revision, self.phase, self.now, self.born = 0, 0, 100.0, 0
        self.workers = [self._worker() for _ in range(2)]
        self.told: Counter[tuple[object, ...]] = Counter()
        self.lost: Counter[tuple[object, ...]] = Counter()
        self._keep()

    @property
    def epoch(self) -> Epoch:
        return Epoch.of(f"1.{self.revision}", PHASES[self.phase])

    def _worker(self) -> Worker:
        self.born += 1
        return Worker(self.born, self.epoch)

    def _keep(self) -> None:
        epochs = [Epoch.of(f"1.{self.revision}", state) for state in State]
        self.totals.forget_others(KeptEpochs(("x", epoch) for epoch in epochs))

    @rule(
        number=st.integers(0, 1),
        cohort=st.sampled_from(ENROLLED),
        replicate=st.integers(0, 2),
        times=st.integers(1, 3),
    )
    def begin(self, number: int, cohort: str, replicate: int, times: int) -> None:
        worker = self.workers[number]
        for _ in range(times):
            measured = [Measured(metric, worker.epoch) for metric in METRICS]
            key = begin_exchange(
                worker.counters, "x", worker.epoch, cohort, replicate, measured, self.now
            )
            worker.open.append((key, cohort, replicate))
            worker.unreported[worker.epoch, "all", cohort, replicate, "good"] += 1

    @rule(number=st.integers(0, 1), data=st.data(), status=st.sampled_from([200, 404, 503, None]))
    def end(self, number: int, data: st.DataObject, status: int | None) -> None:
        worker = self.workers[number]
        if not worker.open:
            return
        place = data.draw(st.integers(0, len(worker.open) - 1))
        key, cohort, replicate = worker.open.pop(place)
        counters = worker.counters
        measured = [Measured(metric, key.epoch) for metric in METRICS]
        count_exchange(counters, "in", "x", cohort, status, 0.1, replicate, measured, key.slot)
        counters.add(DoseKey("x", key.epoch, 0, FaultResult.PERFORMED))
        counters.end(key)
        answered = status is not None and status < 500
        outcome = "good" if answered else "bad"
        worker.unreported[key.epoch, "ok", cohort, replicate, outcome] += 1
        worker.unreported[key.epoch, "dose"] += 1
        if answered:
            worker.unreported[key.epoch, "visits", cohort, replicate, "good"] += 1

    @rule(number=st.integers(0, 1))
    def report(self, number: int) -> None:
        worker = self.workers[number]
        self.totals.update(str(worker.number), worker.counters.take_changed())
        self.told.update(worker.unreported)
        worker.unreported.clear()
        worker.open_at_report = list(worker.open)

    @rule(number=st.integers(0, 1))
    def repeat_everything(self, number: int) -> None:
        """As to a supervisor that has just come."""
        self.report(number)
        worker = self.workers[number]
        self.totals.update(str(worker.number), worker.counters.everything())

    @rule(number=st.integers(0, 1))
    def plan_arrives(self, number: int) -> None:
        worker = self.workers[number]
        worker.epoch = self.epoch
        worker.counters.forget_others(KeptEpochs([("x", self.epoch)]))

    @precondition(lambda self: self.phase < 2)
    @rule()
    def next_phase(self) -> None:
        self.phase += 1

    @rule()
    def edit(self) -> None:
        self.phase, self.revision = 0, self.revision + 1
        self._keep()

    @rule(number=st.integers(0, 1))
    def die(self, number: int) -> None:
        worker = self.workers[number]
        self.totals.retire(str(worker.number))
        for key, cohort, _ in worker.open_at_report:
            self.lost[key.epoch, cohort] += 1
        self.workers[number] = self._worker()

    @rule(slots=st.integers(0, 4))
    def time_passes(self, slots: int) -> None:
        self.now += slots * SLOT

    @invariant()
    def all_that_was_reported_is_counted_once(self) -> None:
        for phase in PHASES:
            epoch = Epoch.of(f"1.{self.revision}", phase)
            dose = DoseKey("x", epoch, 0, FaultResult.PERFORMED)
            assert self.totals.get(dose) == self.told[epoch, "dose"]
            for metric in ("ok", "all"):
                for cohort in ENROLLED:
                    counts = self.totals.sample("x", epoch, metric, cohort, 2).counts
                    for replicate in range(3):
                        for column, outcome in enumerate(("good", "bad")):
                            labels = epoch, metric, cohort, replicate, outcome
                            assert counts[replicate, column] == self.told[labels]

    @invariant()
    def what_dead_processes_had_under_way_is_known(self) -> None:
        for phase in PHASES:
            epoch = Epoch.of(f"1.{self.revision}", phase)
            for cohort in ENROLLED:
                lost = self.totals.open.ended_by_us("x", epoch, "ok", cohort)
                assert lost == self.lost[epoch, cohort]

    @invariant()
    def what_is_under_way_is_known(self) -> None:
        for phase in PHASES:
            epoch = Epoch.of(f"1.{self.revision}", phase)
            known = [
                key.slot
                for w in self.workers
                for key, _, _ in w.open_at_report
                if key.epoch == epoch
            ]
            assert self.totals.open.oldest_slot("x", epoch) == min(known, default=None)

    def teardown(self) -> None:
        """All rates are there in the end, and nothing is kept for what is over."""
        for number in (0, 1):
            while self.workers[number].open:
                worker = self.workers[number]
                key, cohort, replicate = worker.open.pop()
                worker.counters.end(key)
            self.plan_arrives(number)
            self.report(number)
            left = self.workers[number].counters.counts
            assert all(k.epoch == self.epoch for k in left if isinstance(k, SteadyKey))
        for phase in PHASES:
            epoch = Epoch.of(f"1.{self.revision}", phase)
            self.totals.settle("x", epoch, 10**9)
            for cohort in ENROLLED:
                counts = self.totals.sample("x", epoch, "visits", cohort, 2).counts
                for replicate in range(3):
                    told = self.told[epoch, "visits", cohort, replicate, "good"]
                    assert counts[replicate, 0] == told


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
