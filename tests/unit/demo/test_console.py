"""What the demo prints, from what the API says."""

from io import StringIO
from typing import Any

from rich.console import Console

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.demo.console import TourConsole
from counterfault.proxy.demo.outcome import Outcome
from counterfault.proxy.demo.scenarios import SCENARIOS, Scenario
from counterfault.proxy.models.overview import ExperimentSummary

HARMLESS, HARMFUL = SCENARIOS
USERS = {"control": 9, "experiment": 9, "expected_share": 0.5, "evidence": 0.0, "off": False}
METRIC = {
    "name": "checkout",
    "at": "inbound",
    "kind": "success_rate",
    "tolerance": "drop 1pp",
    "unit": "pp",
    "allowed": 0.01,
    "effect": 1.0,
    "lower": 0.978,
    "upper": None,
    "harmed": True,
    "within": False,
    "evidence": {"harm": 40.0, "within": -40.0, "harm_at": 3.0, "within_at": 3.0},
    "detectable": None,
    "needed": None,
    "clusters": 64.0,
    "control": {"events": 128, "bad": 0, "level": 0.0},
    "experiment": {"events": 127, "bad": 127, "level": 1.0},
    "says": "checkout: 100 pp more requests failed",
    "levels": ["0% bad", "100% bad"],
}


def in_each_phase(control: dict[str, Any], experiment: dict[str, Any]) -> dict[str, Any]:
    """Traffic at a listener that is the same in each phase."""
    both = {"control": control, "experiment": experiment}
    return both | {"phases": dict.fromkeys(("baseline", "running", "recovering"), both)}


def seen(act: Scenario = HARMFUL, **changes: Any) -> ExperimentSummary:
    """A run of the second act's kind as the API has it: all checkouts of the experiment fail."""
    traffic = {"requests": 400, "errors": 0, "p50": 0.0184, "p99": None}
    fault = {"at": "payments", "fault": "error", "dose": 1.0, "when": "before"}
    verdict = {"result": "refuted", "reason": "checkout: 100 pp more requests failed"}
    data = {
        "name": act.name,
        "hypothesis": "All is [well]",
        "run": 1,
        "state": "running",
        "reason": "",
        "remaining": 11.6,
        "phases": {"baseline": 10, "duration": 30, "recovery": 10},
        "cohorts": {"experiment": 0.1, "control": 0.1},
        "faults": [fault | {"planned": 120, "performed": 120, "overflow": 0, "failed": 0}],
        "listeners": {"inbound": in_each_phase(traffic, traffic | {"errors": 100})},
        "steady_state": [],
        "verdict": verdict | {"provisional": False},
        "dose": {"planned": 120, "performed": 120, "share": 1.0},
        "users": USERS,
        "metrics": [METRIC],
        "forecast": [],
    }
    return ExperimentSummary.from_data(data | changes)


def screen(
    terminal: bool = False, clock: float = 0.0, width: int = 110
) -> tuple[TourConsole, StringIO]:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, highlight=False)
    return TourConsole(console, lambda: clock), out


def outcome(act: Scenario = HARMFUL, **changes: Any) -> Outcome:
    return Outcome(act, seen(act, **{"state": "done", "remaining": None, **changes}))


def test_a_log_has_a_line_for_each_phase_and_not_for_each_look() -> None:
    shown, out = screen()
    with shown.following() as follow:
        for state in ("baseline", "running", "running", "running", "recovering"):
            follow(seen(state=state))
    lines = out.getvalue().splitlines()
    assert [line.partition("]")[0] for line in lines] == [
        "[measuring both groups first, no faults yet, 12s left",
        "[the faults are on, 12s left",
        "[the faults are off, both groups should be alike again, 12s left",
    ]
    assert lines[1].endswith(
        "control 400 requests, 0.0% failed, p50 18 ms, p99 -; "
        "experiment 400 requests, 25.0% failed, p50 18 ms, p99 -; 120 faults performed"
    )


def test_a_terminal_has_a_table_of_both_cohorts() -> None:
    shown, out = screen(terminal=True)
    with shown.following() as follow:
        follow(seen())
    text = out.getvalue()
    assert "control (left alone)" in text
    assert "experiment (gets the fault)" in text
    assert "25.0%" in text
    assert "12s left" in text


def test_cohorts_without_requests_are_shown_too() -> None:
    nothing = {"requests": 0, "errors": 0, "p50": None, "p99": None}
    shown, out = screen()
    with shown.following() as follow:
        follow(seen(listeners={"inbound": in_each_phase(nothing, nothing)}))
    assert "control 0 requests, - failed, p50 -, p99 -" in out.getvalue()


def test_each_act_says_first_what_is_foretold() -> None:
    shown, out = screen()
    for act in SCENARIOS:
        shown.announce(act)
    text = out.getvalue()
    assert "Foretold: the hypothesis is held" in text
    assert "Foretold: the hypothesis is refuted" in text


def test_the_last_table_says_what_held_with_its_numbers() -> None:
    shown, out = screen(width=80)
    shown.conclude([outcome()])
    text = out.getvalue()
    for part in (
        *("failing-payments", "refuted, as foretold", "All is [well]", "120 faults performed"),
        *("drop 1pp", "0% bad", "100% bad", "of 128", "of 127"),
        *("+100.0 pp", "+97.8 pp to -"),
    ):
        assert part in text
    assert "Every experiment ended as foretold." in text


def test_a_surprise_is_said() -> None:
    shown, out = screen()
    verdict = {"result": "inconclusive", "reason": "stopped by an operator", "provisional": False}
    found = outcome(HARMLESS, state="stopped", verdict=verdict)
    shown.conclude([found])
    assert found.result is Result.INCONCLUSIVE
    said = "slow-recommendations was inconclusive (stopped by an operator), not held."
    assert f"Not as foretold: {said}" in out.getvalue()
