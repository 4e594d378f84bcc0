"""An error of ours: the request passes untouched, it is counted, the log has one line."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.proxy import commands
from mitmproxy.test import tflow

from counterfault.addons.mitm.hook_dispatch import HookDispatcher
from counterfault.addons.pipeline.assign import Assign
from counterfault.addons.pipeline.exchange import Exchange, MessageFaults, exchange_of
from counterfault.addons.pipeline.inject import Inject
from counterfault.addons.pipeline.observe import Observe
from counterfault.addons.pipeline.upstreams import Upstreams
from counterfault.addons.state import WorkerState
from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines import fault_budget
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.plan import Plan, Route
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.measurement.keys import InternalErrorKey

EXPERIMENT = {
    "experiment": "x",
    "state": "running",
    "duration": "1h",
    "cohorts": {"experiment": "50%", "control": "50%"},
    "faults": [{"at": "inbound", "error": 503}],
}


def plan() -> Plan:
    listener = {"listen": "127.0.0.1:1", "upstream": "http://127.0.0.1:2"}
    sidecar = Sidecar.model_validate({"service": "s", "listeners": {"inbound": listener}})
    return Plan(
        sidecar, (Experiment.model_validate(EXPERIMENT),), {"x": RunStatus(Epoch("1.0.running"))}
    )


def live() -> WorkerState:
    return WorkerState(plan(), Budget(fault_budget.create(), 0), {"x": 0}, lease_until=float("inf"))


@dataclass
class Peer:
    route: Route
    message_faults: MessageFaults
    upstreams: Upstreams = field(default_factory=lambda: Upstreams(lambda: 0.0))
    exchanges: set[Exchange] = field(default_factory=set)
    limits: Limits = field(default_factory=Limits)

    def intercepts(self, host: str) -> bool:
        return False

    def run_inline(self, hook: commands.StartHook) -> bool:
        return False

    def reset(self) -> None:
        raise AssertionError("nobody asked for a reset")


def asked(user: str) -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.request.headers["x-user-id"] = user
    return flow


class Wrecked:
    """A plan of which one step is broken."""

    def __init__(self, whole: Plan, step: str) -> None:
        self._whole, self._step = whole, step

    def __getattr__(self, name: str) -> Any:
        if name == self._step:
            raise RuntimeError(f"{name} is broken")
        return getattr(self._whole, name)


@pytest.mark.parametrize("step", ["unit", "assign", "decide", "measured", "routes"])
def test_a_broken_step_leaves_the_request_as_it_was(
    step: str, user: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    state = live()
    inject = Inject(state)
    peer = Peer(state.plan.routes["inbound"], inject)
    state.plan = Wrecked(state.plan, step)  # type: ignore[assignment]
    flow = asked(user("experiment", share=0.5))
    before = flow.request.headers.fields
    owner = _Owner(state)
    with caplog.at_level(logging.ERROR, "counterfault"):
        _run(owner, ("assign", lambda f: Assign(state).requestheaders(f, peer)), flow)
        _run(owner, ("inject", inject.requestheaders), flow)
        _run(owner, ("observe", Observe(state, inject.exchange_ended).response), flow)
    assert flow.response is None
    assert flow.request.headers.fields == before
    assert state.counters.counts[InternalErrorKey("assign")] == 1
    assert len(caplog.records) == 1
    exchange = exchange_of(flow)
    assert exchange is None or exchange.enrolment is None


def test_a_sound_plan_does_fault(user: Callable[..., str]) -> None:
    """The test above would pass on anything that never faults."""
    state = live()
    flow = asked(user("experiment", share=0.5))
    inject = Inject(state)
    Assign(state).requestheaders(flow, Peer(state.plan.routes["inbound"], inject))
    waiting = inject.requestheaders(flow)
    assert waiting is not None
    with pytest.raises(StopIteration):
        waiting.send(None)
    assert flow.response is not None
    assert flow.response.status_code == 503


class _Owner:
    def __init__(self, state: WorkerState) -> None:
        self._live = state

    def failed(self, where: str, error: Exception) -> None:
        self._live.failed(where, error)

    def finish_later(self, hook: Any, waiting: Any) -> None:
        raise AssertionError("nothing waits")


def _run(owner: _Owner, handler: Any, flow: http.HTTPFlow) -> None:
    hooked = HookDispatcher(owner, {}, None)  # type: ignore[arg-type]
    assert hooked._run_from((handler,), flow) is None
