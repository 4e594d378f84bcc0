"""inject: decides which of the faults that were drawn for a request may happen, and when."""

from collections.abc import Coroutine
from functools import partial
from typing import assert_never

from mitmproxy import http

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.exchange_effects import apply_edit
from counterfault.addons.pipeline.exchange import Exchange, exchange_of
from counterfault.addons.pipeline.perform import perform
from counterfault.addons.state import WorkerState
from counterfault.proxy.engines.fault_budget import Grant
from counterfault.proxy.engines.plan import EachMessage, Injection, Plan
from counterfault.proxy.experiments.cohorts import Enrolment
from counterfault.proxy.faults.actions import Edit
from counterfault.proxy.measurement.keys import FaultResult, dose_key, fault_key

type Performing = Coroutine[None, None, None]


class Inject:
    """Performs faults before the upstream (at the request's head) and after it."""

    def __init__(self, state: WorkerState) -> None:
        """Act on the plan and lease of `state`."""
        self._state, self.clock = state, state.clock

    def requestheaders(self, flow: http.HTTPFlow) -> Performing | None:
        """Handle mitmproxy's hook. Returns what to await before the request goes on."""
        flow.request.stream = True
        exchange = exchange_of(flow)
        if exchange is None or exchange.enrolment is None:
            return None
        if "upgrade" in flow.request.headers and self._loses_messages(exchange, exchange.enrolment):
            # With compression, a message is needed to decompress those after it; one may be lost.
            apply_edit(flow.request.headers, Edit((b"sec-websocket-extensions",)))
        decision = exchange.decision
        if not decision.before and not decision.after:
            return None
        exchange.pending = [
            i for i in decision.before + decision.after if self._dose_allows(exchange, i)
        ]
        return self._perform(flow, exchange, decision.before)

    def responseheaders(self, flow: http.HTTPFlow) -> Performing | None:
        """Handle mitmproxy's hook. Returns what to await before the response goes on."""
        exchange = exchange_of(flow)
        if flow.response is None or (exchange is not None and exchange.replaced):
            return None
        flow.response.stream = True
        if exchange is None:
            return None
        if exchange.effects is not None:
            exchange.effects.edit_head(flow.response.headers)
        if not exchange.pending:
            return None
        return self._perform(flow, exchange, exchange.decision.after)

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count the faults that were drawn and not tried as failed, and release the others."""
        for injection in exchange.pending:
            self._count(exchange, injection, FaultResult.PLANNED)
            self._count(exchange, injection, FaultResult.FAILED)
        exchange.pending.clear()
        exchange.release_faults()

    def message_rules(self, exchange: Exchange) -> tuple[EachMessage, ...]:
        """Return the rules of the present plan for the messages of a WebSocket.

        They are found anew with each plan, since a WebSocket may be older than its faults.
        """
        state, known = self._state, exchange.message_rules
        if not state.leased():
            return ()
        if known is None or known[0] is not state.plan:
            known = exchange.message_rules = state.plan, self._message_rules(exchange, state.plan)
        return known[1]

    def _message_rules(self, exchange: Exchange, plan: Plan) -> tuple[EachMessage, ...]:
        listener, request = exchange.route.name, exchange.request
        enrolment = plan.assign(request, exchange.unit, exchange.tag)
        if enrolment is None or listener not in plan.routes:
            return ()
        self._state.count_user(enrolment)
        return plan.messages(listener, request, enrolment)

    def _loses_messages(self, exchange: Exchange, enrolment: Enrolment) -> bool:
        plan, listener = self._state.plan, exchange.route.name
        return listener in plan.routes and plan.loses(listener, exchange.request, enrolment)

    def draw(self, exchange: Exchange, each: EachMessage) -> ActiveFault | None:
        """Draw a fault for one message and begin it, as `activate` does."""
        injection = each.draw(self._state.random)
        return None if injection is None else self.activate(exchange, injection)

    def activate(self, exchange: Exchange, injection: Injection) -> ActiveFault | None:
        """Begin a fault, which the caller has to release.

        Returns None, and counts why, if the fault may not happen: its run has ended or a limit is
        reached.
        """
        state = self._state
        self._count(exchange, injection, FaultResult.PLANNED)
        if not state.allows(injection):
            self._count(exchange, injection, FaultResult.FAILED)
            return None
        limits = state.plan.limits
        slot = state.budget_slots[injection.experiment]
        if not state.budget.take(slot, limits.active_faults, injection.most):
            self._count(exchange, injection, FaultResult.OVERFLOW)
            return None
        return ActiveFault(state, injection, partial(self._count, exchange), exchange.held_faults)

    def _dose_allows(self, exchange: Exchange, injection: Injection) -> bool:
        """Whether the limit of a dose, such as `first: 3`, allows one more; counts it if so."""
        if injection.limit is None:
            return True
        who = b""
        if injection.limit.every is None:
            enrolled = exchange.enrolment
            who = exchange.unit or (b"%d" % enrolled.replicate if enrolled else b"")
        what = b"%s %d %s" % (injection.epoch.encode(), injection.rule, who)
        slot = self._state.budget_slots[injection.experiment]
        match self._state.budget.grant(slot, what, injection.limit, self._state.clock()):
            case Grant.YES:
                return True
            case Grant.NO:
                return False
            case Grant.FULL:
                self._count(exchange, injection, FaultResult.PLANNED)
                self._count(exchange, injection, FaultResult.OVERFLOW)
                return False
            case other:
                assert_never(other)

    async def _perform(
        self, flow: http.HTTPFlow, exchange: Exchange, injections: tuple[Injection, ...]
    ) -> None:
        for injection in injections:
            if exchange.replaced or not flow.live:
                return
            if injection in exchange.pending:
                exchange.pending.remove(injection)
                await self._try(flow, exchange, injection)

    async def _try(self, flow: http.HTTPFlow, exchange: Exchange, injection: Injection) -> None:
        fault = self.activate(exchange, injection)
        if fault is None:
            return
        lasting = False
        try:
            lasting = await perform(flow, exchange, fault)
        finally:
            if not lasting:
                fault.release()

    def _count(self, exchange: Exchange, injection: Injection, result: FaultResult) -> None:
        name, listener = injection.experiment, exchange.route.name
        add = self._state.counters.add
        add(dose_key(name, injection.epoch, injection.rule, result))
        if result is not FaultResult.PLANNED:
            add(fault_key(name, listener, injection.fault, result))
