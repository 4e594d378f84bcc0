"""The verdict keeps its promises, and would be seen not to if the deciding code were broken."""

from collections.abc import Callable
from dataclasses import replace
from math import log, sqrt
from typing import Any

import pytest

from counterfault.proxy.analysis import comparison, deviance, sequential
from counterfault.proxy.analysis.sequential import Evidence, Signal
from tests.simulate.small import broken


def test_every_promise_is_kept() -> None:
    assert list(broken()) == []


def _louder(signal: Signal) -> Evidence:
    """Standard errors that are too small by a third."""
    return sequential.evidence(replace(signal, z=1.5 * signal.z))


def _once(signal: Signal) -> Evidence:
    """A test at 5 % for a single look."""
    sure = log(1000)
    return Evidence(sure if signal.z > 1.645 else 0.0, sure if signal.z < -1.645 else 0.0)


def _silent(signal: Signal) -> Evidence:
    return Evidence()


def _reckless(signal: Signal) -> Evidence:
    """Whatever is not worse holds."""
    found = sequential.evidence(signal)
    return replace(found, within=log(1000) if signal.distance < 0 else 0.0)


@pytest.mark.parametrize("mutant", [_louder, _once, _silent, _reckless])
def test_wrong_evidence_breaks_a_promise(
    mutant: Callable[[Signal], Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "evidence", mutant)
    assert next(broken(), None) is not None


def test_requests_of_a_user_that_are_taken_for_independent_break_a_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def independent(*arguments: Any) -> Signal:
        found = deviance.proportion(*arguments)
        control, experiment = arguments[:2]
        pc, pe = control.hits / control.total, experiment.hits / experiment.total
        variance = pc * (1 - pc) / control.total + pe * (1 - pe) / experiment.total
        z = found.distance / sqrt(variance) if variance else found.z
        return replace(found, z=z, variance=variance or found.variance)

    monkeypatch.setattr(comparison, "proportion", independent)
    assert any("alike" in promise for promise in broken())
