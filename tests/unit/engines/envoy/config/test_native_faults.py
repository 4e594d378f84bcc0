"""What Envoy performs by itself, and what takes a detour, with its reason."""

from typing import Any

import pytest

from counterfault.proxy.engines.envoy.config.native_faults import (
    POINTS,
    Detour,
    NativeDelay,
    NativeDrop,
    NativeResponse,
    detours,
    native_fault,
)
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.faults.actions import Respond


def experiment(*faults: dict[str, Any], **more: Any) -> Experiment:
    rules = [{"at": "inbound", **fault} for fault in faults]
    cohorts = {"experiment": "1%", "control": "1%"}
    said = {"experiment": "x", "state": "running", "duration": "1h", "cohorts": cohorts}
    return Experiment.model_validate({**said, "faults": rules, **more})


def made(**fault: Any) -> object:
    return native_fault(experiment(fault).faults[0])


@pytest.mark.parametrize(
    ("latency", "median", "longest"),
    [
        ("250ms", 250, 250),
        ({"mean": "200ms", "jitter": "50ms"}, 200, 250),
        ({"p50": "400ms", "p99": "2s"}, 400, 3393),
        ({"lognormal": {"median": "150ms", "sigma": 0.5}}, 150, 703),
        ({"lognormal": {"median": "150ms", "sigma": 0.5}, "max": "300ms"}, 150, 300),
    ],
)
def test_a_latency_becomes_a_table_of_its_quantiles(
    latency: Any, median: float, longest: float
) -> None:
    found = made(latency=latency)
    assert isinstance(found, NativeDelay)
    assert not found.drop
    assert len(found.quantiles) == POINTS + 1
    assert found.quantiles[POINTS // 2] == pytest.approx(median, rel=1e-3)
    assert found.quantiles[-1] == pytest.approx(longest, rel=1e-3)
    assert list(found.quantiles) == sorted(found.quantiles)


def test_an_error_has_an_answer_for_grpc_of_its_own() -> None:
    found = made(error={"status": 503, "grpc": "UNAVAILABLE", "body": "no"})
    assert isinstance(found, NativeResponse)
    assert (found.plain.status, found.plain.body) == (503, b"no")
    assert found.grpc == Respond(
        200, ((b"content-type", b"application/grpc"), (b"grpc-status", b"14")), b""
    )


def test_what_cuts_an_exchange_is_native() -> None:
    assert made(drop="close") == NativeDrop()
    found = made(drop={"mode": "hang", "hang": "2s"})
    assert found == NativeDelay((2000.0,) * (POINTS + 1), drop=True)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"latency": "1s", "when": "after"}, "`when: after`"),
        ({"error": 503, "dose": {"first": 3}}, "a dose that is counted"),
        ({"error": 503, "dose": {"burst": 3, "every": "1m"}}, "a dose that is counted"),
        ({"error": 503, "match": {"regex": "/a.*"}}, "a fault's `regex`"),
        ({"latency": "1s", "per": "message"}, "`per: message`"),
        ({"drop": "reset"}, "a TCP reset"),
        ({"bandwidth": "10KB/s"}, "`bandwidth`"),
        ({"duplicate": 2, "unsafe": True}, "`duplicate`"),
    ],
)
def test_everything_else_takes_a_detour_and_says_why(fault: dict[str, Any], why: str) -> None:
    assert made(**fault) == Detour(why)
    assert detours(experiment(fault)) == {"inbound": why}


def test_one_fault_that_is_not_native_takes_the_others_at_its_listener_along() -> None:
    both = experiment({"error": 503}, {"drop": "reset"}, {"at": "payments", "error": 503})
    assert detours(both) == {"inbound": "a TCP reset"}


def test_a_finite_number_of_faults_is_counted_by_workers() -> None:
    assert detours(experiment({"error": 503}, guard={"max_faults": 5})) == {
        "inbound": "`guard.max_faults`"
    }
