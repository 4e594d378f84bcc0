"""What answers a GET is given a SidecarState, on which nothing can be stopped or reloaded."""

from inspect import signature

import pytest

from counterfault.proxy.admin import chart_data, metrics, routes, views
from counterfault.proxy.supervisor.sidecar_state import Counts, DataPlaneState, SidecarState

ACTS = {"start", "reload", "stop", "resume", "tick", "close", "renew", "push", "bind", "update"}


def test_the_state_has_no_method_that_acts() -> None:
    for protocol in (SidecarState, DataPlaneState, Counts):
        assert not ACTS & set(dir(protocol))


@pytest.mark.parametrize(
    "function",
    [
        views.overview,
        views.detail,
        views.report,
        chart_data.chart_data,
        metrics.render,
        routes.readiness,
    ],
)
def test_functions_that_answer_a_get_take_the_state(function: object) -> None:
    assert callable(function)
    assert next(iter(signature(function).parameters.values())).annotation is SidecarState
