"""What Prometheus answers becomes samples, findings, stops and verdicts."""

from collections.abc import Iterable

import numpy as np
import pytest

from counterfault.proxy.analysis.comparison import Threshold, boundary_of, compare, signal
from counterfault.proxy.analysis.deviance import rate
from counterfault.proxy.analysis.external.prometheus_response import Answer, Counts, Level
from counterfault.proxy.analysis.external.readings import When, increase
from counterfault.proxy.analysis.monitor import Monitor, stops
from counterfault.proxy.analysis.replicate_variance import events_of
from counterfault.proxy.analysis.verdict import Findings, conclude
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.experiment import Cohorts, Experiment
from counterfault.proxy.experiments.lifecycle import Reason, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, SteadyKey
from counterfault.proxy.measurement.samples import Pair, Sample
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.runs.summary import run_summary

ORDERS = {"query": 'orders{cohort="$cohort"}', "drop": "5%"}
WALL = 1_800_000_000.0
EQUAL = Cohorts.model_validate({"experiment": "1%", "control": "1%"})

EXPERIMENT = Experiment.model_validate(
    {
        "experiment": "x",
        "state": "running",
        "duration": "30m",
        "cohorts": {"experiment": "1%", "control": "1%"},
        "faults": [{"at": "payments", "latency": "400ms"}],
    }
)


def orders(**changes: object) -> Metric:
    return Metric.model_validate({"name": "orders", "prometheus": ORDERS | changes})


class Watched:
    """One run that is looked at: time is moved, answers are given, and read off again."""

    def __init__(self, *metrics: Metric) -> None:
        self.metrics = metrics or (orders(),)
        self.totals = Totals()
        self.watch = Monitor(self.totals)
        self.now = 100.0
        self.run = Run("x", 1, State.RUNNING, entered=self.now)
        self.experiment = EXPERIMENT.model_copy(update={"steady_state": self.metrics})
        self.performed()

    def performed(self) -> None:
        epoch = self.run.epoch_of(State.RUNNING)
        results = (FaultResult.PLANNED, FaultResult.PERFORMED)
        rows = [(DoseKey("x", epoch, 0, result), 10.0) for result in results]
        self.totals.update("worker", rows)

    def enter(self, state: State) -> None:
        self.run = Run("x", 1, state, entered=self.now)

    def answer(self, control: Answer, experiment: Answer, after: float = 5.0) -> None:
        """Both cohorts' answer, so many seconds after the one before."""
        self.now += after
        both = {Cohort.CONTROL: control, Cohort.EXPERIMENT: experiment}
        when = When(self.now, WALL + self.now)
        self.watch.readings.answered(self.run, self.metrics[0], both, when)

    def levels(self, control: float, experiment: float, after: float = 5.0) -> None:
        self.answer(Level(control), Level(experiment), after)

    def fail(self, why: str = "HTTP 503", after: float = 5.0) -> None:
        self.now += after
        when = When(self.now, WALL + self.now)
        self.watch.readings.failed(self.run, self.metrics[0], why, when)

    def look(self, after: float = 0.0) -> Findings:
        self.now += after
        return self.watch.evaluate(self.run, self.experiment, self.now)

    def events(self, state: State = State.RUNNING) -> tuple[int, int]:
        pair = self.watch.pair(self.run, self.metrics[0], state)
        return pair.control.events, pair.experiment.events


def counts(values: Iterable[float], pod: str = "a") -> Counts:
    """One series per replicate."""
    series = enumerate(values)
    return Counts({(("pod", pod), ("replicate", str(i))): value for i, value in series})


def even(value: float) -> Counts:
    return counts([value] * 16)


def test_an_increase_is_what_came_since_and_a_reset_continues_from_there():
    told = [None, 5.0, 8.0, 2.0, 4.0]
    pairs = zip([None, *told[1:-1]], told[1:], strict=True)
    assert [increase(before, now) for before, now in pairs if now is not None] == [0, 3, 0, 2]


def test_only_what_came_while_the_faults_were_on_is_counted():
    watched = Watched()
    watched.answer(even(100), even(100))
    assert watched.events() == (0, 0)
    watched.answer(even(103), even(101))
    assert watched.events() == (48, 16)


def test_an_answer_about_the_time_before_a_phase_is_not_the_phases_own():
    watched = Watched()
    watched.run = Run("x", 1, State.RUNNING, entered=watched.now + 7)
    watched.answer(even(100), even(100))
    watched.answer(even(150), even(150))
    watched.answer(even(151), even(151))
    assert watched.events() == (16, 16)


def test_each_phase_has_its_own_counts():
    watched = Watched()
    watched.enter(State.BASELINE)
    watched.answer(even(0), even(0))
    watched.answer(even(10), even(10))
    watched.enter(State.RUNNING)
    watched.answer(even(20), even(20))
    watched.answer(even(21), even(20))
    assert watched.events(State.BASELINE) == (160, 160)
    assert watched.events() == (16, 0)


def test_a_pod_that_is_gone_for_a_while_neither_takes_nor_repeats_counts():
    def answer(*pods: Counts) -> Counts:
        return Counts({series: v for pod in pods for series, v in pod.by_series.items()})

    watched = Watched()
    a, b = even(50), counts([1000] * 16, "b")
    watched.answer(answer(a, b), answer(a, b))
    watched.answer(a, a)
    watched.answer(answer(a, counts([1001] * 16, "b")), answer(a, b))
    assert watched.events() == (16, 0)


def test_a_series_that_appears_may_be_old_so_its_value_is_where_it_begins():
    watched = Watched()
    watched.answer(counts([5] * 8), counts([5] * 8))
    watched.answer(counts([5] * 8 + [900] * 8), counts([6] * 16))
    assert watched.events() == (0, 8)


def test_a_clock_that_is_set_back_counts_nothing_twice():
    watched = Watched()
    watched.answer(even(10), even(10))
    watched.answer(even(20), even(20))
    both = {Cohort.CONTROL: even(12), Cohort.EXPERIMENT: even(12)}
    back = When(watched.now + 5, WALL - 3600)
    watched.watch.readings.answered(watched.run, watched.metrics[0], both, back)
    both = {Cohort.CONTROL: even(13), Cohort.EXPERIMENT: even(13)}
    later = When(watched.now + 10, WALL - 3595)
    watched.watch.readings.answered(watched.run, watched.metrics[0], both, later)
    assert watched.events() == (176, 176)


def test_an_edited_run_counts_anew():
    watched = Watched()
    watched.answer(even(0), even(0))
    watched.answer(even(10), even(10))
    watched.run = Run("x", 1, State.RUNNING, edits=1, entered=watched.now)
    watched.answer(even(20), even(20))
    assert watched.events() == (0, 0)


@pytest.mark.parametrize(("replicates", "rows"), [(8, 8), (10, 16), (16, 16), (33, 64), (64, 64)])
def test_the_number_of_replicates_is_read_off_the_counts(replicates: int, rows: int):
    sample = Sample.empty()
    sample.counts[:replicates, 0] = 1
    assert Pair(sample, Sample.empty()).replicates == rows
    assert Pair(Sample.empty(), sample).replicates == rows


def test_sixteen_replicates_are_compared_as_sixteen():
    rng = np.random.default_rng(1)
    control, experiment = Sample.empty(), Sample.empty()
    control.counts[:16, 0], experiment.counts[:16, 0] = rng.poisson(60, 16), rng.poisson(50, 16)
    found = signal(orders(), Pair(control, experiment), EQUAL)
    first = events_of(control.counts[:16]), events_of(experiment.counts[:16])
    assert found == rate((first[0], 1.0), (first[1], 1.0), boundary_of(orders()))
    assert found is not None
    assert 25 < found.freedom <= 30


def decided(side: str, factor: float, runs: int = 150) -> tuple[int, int]:
    """How many runs found harm and an effect within 20 %, ever, in 30 looks of 60 new users."""
    rng = np.random.default_rng(7)
    metric = orders(**{"drop": None, side: "20%"})
    threshold = Threshold.of(0.95, 1)
    harmed = within = 0
    for _ in range(runs):
        pair = Pair(Sample.empty(), Sample.empty())
        found = []
        for _ in range(30):
            for sample, times in ((pair.control, 1.0), (pair.experiment, factor)):
                events = rng.poisson(times * rng.lognormal(0.0, 1.0, 60))
                np.add.at(sample.counts[:, 0], rng.integers(0, 16, 60), events)
            found.append(compare(metric, pair, EQUAL, threshold))
        harmed += any(c.harmed for c in found)
        within += any(c.within for c in found)
    return harmed, within


@pytest.mark.parametrize(("side", "factor"), [("drop", 0.8), ("rise", 1.2)])
def test_sixteen_replicates_keep_their_promise_at_the_boundary(side: str, factor: float):
    harmed, within = decided(side, factor)
    # 5 % of 150 is 7.5; more than 15 come by chance once in 250 times.
    assert harmed <= 15
    assert within <= 15


def test_sixteen_replicates_are_enough_to_see_that_there_is_no_effect():
    harmed, within = decided("drop", 1.0)
    assert harmed <= 15
    assert within >= 75


def test_a_loss_of_orders_stops_the_run_and_refutes():
    watched = Watched()
    watched.answer(even(0), even(0))
    watched.answer(even(50), even(10))
    found = watched.look()
    assert stops(watched.run, found) == [Reason.HARM]
    watched.run = Run("x", 1, State.STOPPED, Reason.HARM)
    verdict = conclude(watched.run, found)
    assert verdict.result == "refuted"
    assert verdict.reason.startswith("orders: 80 % fewer events (")


def test_a_rise_of_complaints_stops_the_run():
    watched = Watched(orders(drop=None, rise="20%"))
    watched.answer(even(0), even(0))
    watched.answer(even(50), even(100))
    found = watched.look()
    assert stops(watched.run, found) == [Reason.HARM]
    assert found.comparisons[0].effect == pytest.approx(1.0)
    watched.run = Run("x", 1, State.STOPPED, Reason.HARM)
    assert "100 % more events" in conclude(watched.run, found).reason


def test_as_many_orders_are_within():
    watched = Watched(orders(drop="20%"))
    watched.answer(even(0), even(0))
    watched.answer(even(100), even(100))
    found = watched.look()
    assert found.held
    assert conclude(watched.run, found).result == "held"


def test_cohorts_that_differ_before_the_faults_are_found():
    watched = Watched()
    watched.enter(State.BASELINE)
    watched.answer(even(0), even(0))
    watched.answer(even(100), even(50))
    assert stops(watched.run, watched.look()) == [Reason.BASELINE]


# --- a plain number per cohort


def test_a_plain_number_stops_the_run_when_it_is_beyond_for_thirty_seconds():
    watched = Watched()
    for _ in range(6):
        watched.levels(100, 50)
        assert stops(watched.run, watched.look()) == []
    watched.levels(100, 50)
    found = watched.look()
    assert stops(watched.run, found) == [Reason.HARM]
    verdict = conclude(Run("x", 1, State.STOPPED, Reason.HARM), found)
    assert verdict.result == "refuted"
    assert verdict.reason == (
        "orders: 50 % lower than control for 30s (a plain threshold, not a test; 5 % allowed)"
    )


def test_a_plain_number_within_its_tolerance_in_between_begins_anew():
    watched = Watched()
    for experiment in [50] * 6 + [96] + [50] * 6:
        watched.levels(100, experiment)
    assert stops(watched.run, watched.look()) == []


def test_a_missing_answer_in_between_begins_anew():
    watched = Watched()
    for _ in range(6):
        watched.levels(100, 50)
    watched.fail()
    for _ in range(6):
        watched.levels(100, 50)
    assert stops(watched.run, watched.look()) == []


def test_a_plain_number_says_nothing_before_and_after_the_faults():
    watched = Watched()
    for state in (State.BASELINE, State.RECOVERING):
        watched.enter(state)
        for _ in range(10):
            watched.levels(100, 50)
        found = watched.look()
        assert stops(watched.run, found) == []
        assert found.comparisons[0].levels == (None, None)


def test_a_plain_number_beyond_at_the_end_refutes_after_recovery():
    watched = Watched()
    for _ in range(8):
        watched.levels(100, 50)
    watched.enter(State.RECOVERING)
    for _ in range(8):
        watched.levels(100, 100)
    found = watched.look()
    assert conclude(Run("x", 1, State.DONE), found).result == "refuted"


def test_a_plain_number_alone_never_holds():
    watched = Watched()
    for _ in range(10):
        watched.levels(100, 100)
    found = watched.look()
    assert not found.held
    verdict = conclude(Run("x", 1, State.DONE), found)
    assert verdict.result == "inconclusive"
    assert verdict.reason == (
        "nothing is tested: without a label `replicate` there are only plain thresholds"
    )


@pytest.fixture
def beside() -> Watched:
    """A plain metric beside one of the sidecar's own that is within."""
    success = {"name": "success", "at": "inbound", "success_rate": {"drop": "5pp"}}
    watched = Watched(orders(), Metric.model_validate(success))
    for cohort in ("control", "experiment"):
        for replicate in range(64):
            key = SteadyKey("x", watched.run.epoch, "success", cohort, replicate, "good")
            watched.totals.update("worker", [(key, 100.0)])
    return watched


def test_a_plain_number_is_left_out_of_what_holds(beside: Watched):
    beside.levels(100, 99)
    found = beside.look()
    assert found.held
    assert conclude(beside.run, found).reason.endswith(
        "; not tested, only watched by a plain threshold: orders"
    )


def test_a_plain_number_without_data_keeps_the_rest_from_holding(beside: Watched):
    beside.levels(100, 99)
    beside.fail(after=16)
    found = beside.look()
    assert not found.held
    assert (
        conclude(beside.run, found).reason
        == "orders: no data since 2027-01-15 08:01:45 UTC: HTTP 503"
    )


def test_the_summary_says_that_a_metric_is_plain_and_shows_both_numbers():
    watched = Watched()
    watched.levels(100, 80)
    found = watched.look()
    told = run_summary(conclude(watched.run, found), found, UserSample()).metrics[0]
    assert (told.at, told.kind, told.tolerance) == ("prometheus", "prometheus", "drop 5%")
    assert (told.plain, told.no_data, told.within) == (True, None, False)
    assert (told.control.level, told.experiment.level) == (100, 80)
    assert told.levels == ["100", "80"]
    assert told.effect == pytest.approx(0.2)
    assert (told.lower, told.upper, told.needed) == (None, None, None)


@pytest.mark.parametrize("control", [0.0, -5.0])
def test_no_effect_is_made_up_where_control_has_nothing(control: float):
    watched = Watched()
    for _ in range(10):
        watched.levels(control, 3)
    found = watched.look()
    assert found.comparisons[0].effect is None
    assert stops(watched.run, found) == []


# --- no data


def test_before_the_first_answer_there_is_no_data_yet():
    watched = Watched()
    assert watched.look().comparisons[0].no_data == "no data yet"


def test_a_short_silence_is_none():
    watched = Watched(orders(required=True))
    watched.answer(even(0), even(0))
    watched.fail()
    watched.fail()
    found = watched.look(after=5)
    assert found.comparisons[0].no_data == ""
    assert stops(watched.run, found) == []


def test_a_required_metric_without_data_stops_the_run():
    watched = Watched(orders(required=True))
    watched.answer(even(0), even(0))
    watched.fail("connection refused")
    found = watched.look(after=11)
    assert stops(watched.run, found) == [Reason.NO_DATA]
    verdict = conclude(Run("x", 1, State.STOPPED, Reason.NO_DATA), found)
    assert verdict.result == "inconclusive"
    assert verdict.reason == (
        "a required metric had no data: "
        "orders: no data since 2027-01-15 08:01:45 UTC: connection refused"
    )


def test_a_required_metric_that_never_had_data_stops_the_run_before_its_faults():
    watched = Watched(orders(required=True))
    watched.enter(State.BASELINE)
    assert stops(watched.run, watched.look()) == []
    assert stops(watched.run, watched.look(after=59)) == []
    assert stops(watched.run, watched.look(after=1)) == [Reason.NO_DATA]


def test_a_required_metric_whose_data_come_late_in_baseline_is_not_missed():
    watched = Watched(orders(required=True))
    watched.enter(State.BASELINE)
    watched.look()
    watched.answer(even(0), even(0), after=50)
    assert stops(watched.run, watched.look(after=10)) == []
    watched.enter(State.RUNNING)
    assert stops(watched.run, watched.look(after=4)) == []
    assert stops(watched.run, watched.look(after=2)) == [Reason.NO_DATA]


def test_a_required_metric_is_not_missed_once_the_faults_are_off():
    watched = Watched(orders(required=True))
    watched.answer(even(0), even(0))
    watched.enter(State.RECOVERING)
    found = watched.look(after=60)
    assert found.comparisons[0].no_data
    assert stops(watched.run, found) == []


def test_what_is_not_required_is_undecided_without_data():
    watched = Watched(orders(drop="20%"))
    watched.answer(even(0), even(0))
    watched.answer(even(100), even(100))
    assert watched.look().held
    watched.fail(after=20)
    found = watched.look()
    assert stops(watched.run, found) == []
    assert not found.held
    assert conclude(watched.run, found).result == "inconclusive"


def test_harm_that_was_seen_before_the_silence_stays():
    watched = Watched()
    watched.answer(even(0), even(0))
    watched.answer(even(50), even(10))
    found = watched.look(after=60)
    assert found.comparisons[0].no_data
    assert stops(watched.run, found) == [Reason.HARM]
    assert "80 % fewer events" in conclude(Run("x", 1, State.STOPPED, Reason.HARM), found).reason


def test_cohorts_that_answer_in_different_forms_are_no_data():
    watched = Watched()
    watched.answer(even(0), Level(3))
    why = "no data yet: only one cohort's series have a label `replicate`"
    assert watched.look().comparisons[0].no_data == why
