"""decide -> perform: which of the faults that were drawn for a request may happen, and when."""

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

type Waiting = Coroutine[None, None, None]


class Inject:
    """Has faults performed before the upstream (at the request's head) and after (the answer's)."""

    def __init__(self, live: WorkerState) -> None:
        self._live, self.clock = live, live.clock

    def requestheaders(self, flow: http.HTTPFlow) -> Waiting | None:
        flow.request.stream = True
        exchange = exchange_of(flow)
        if exchange is None or exchange.enrolment is None:
            return None
        if "upgrade" in flow.request.headers and self._loses(exchange, exchange.enrolment):
            # A message that is lost would have told how to decompress the next.
            apply_edit(flow.request.headers, Edit((b"sec-websocket-extensions",)))
        decision = exchange.decision
        if not decision.before and not decision.after:
            return None
        exchange.pending = [i for i in decision.before + decision.after if self._due(exchange, i)]
        return self._perform(flow, exchange, decision.before)

    def responseheaders(self, flow: http.HTTPFlow) -> Waiting | None:
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

    def ended(self, exchange: Exchange) -> None:
        """What was drawn and could not be tried any more has failed; nothing is held any more."""
        for injection in exchange.pending:
            self._count(exchange, injection, FaultResult.PLANNED)
            self._count(exchange, injection, FaultResult.FAILED)
        exchange.pending.clear()
        exchange.release()

    def messages(self, exchange: Exchange) -> tuple[EachMessage, ...]:
        """Found anew with each plan: a WebSocket may have been opened long before the faults."""
        live, known = self._live, exchange.rules
        if not live.leased():
            return ()
        if known is None or known[0] is not live.plan:
            known = exchange.rules = live.plan, self._messages(exchange, live.plan)
        return known[1]

    def _messages(self, exchange: Exchange, plan: Plan) -> tuple[EachMessage, ...]:
        listener, request = exchange.route.name, exchange.request
        enrolment = plan.assign(request, exchange.unit, exchange.tag)
        if enrolment is None or listener not in plan.routes:
            return ()
        self._live.count_user(enrolment)
        return plan.messages(listener, request, enrolment)

    def _loses(self, exchange: Exchange, enrolment: Enrolment) -> bool:
        plan, listener = self._live.plan, exchange.route.name
        return listener in plan.routes and plan.loses(listener, exchange.request, enrolment)

    def draw(self, exchange: Exchange, each: EachMessage) -> ActiveFault | None:
        """Draw a fault for one message and begin it, as `activate` does."""
        injection = each.draw(self._live.random)
        return None if injection is None else self.activate(exchange, injection)

    def activate(self, exchange: Exchange, injection: Injection) -> ActiveFault | None:
        """Begin a fault, which the caller has to release.

        Returns None, and counts why, if the fault may not happen: its run has ended or a limit is
        reached.
        """
        live = self._live
        self._count(exchange, injection, FaultResult.PLANNED)
        if not live.allows(injection):
            self._count(exchange, injection, FaultResult.FAILED)
            return None
        limits = live.plan.limits
        cell = live.budget_cells[injection.experiment]
        if not live.budget.take(cell, limits.active_faults, injection.most):
            self._count(exchange, injection, FaultResult.OVERFLOW)
            return None
        return ActiveFault(live, injection, partial(self._count, exchange), exchange.held_faults)

    def _due(self, exchange: Exchange, injection: Injection) -> bool:
        """Whether a limit of the dose leaves room for one more."""
        if injection.limit is None:
            return True
        who = b""
        if injection.limit.every is None:
            enrolled = exchange.enrolment
            who = exchange.unit or (b"%d" % enrolled.replicate if enrolled else b"")
        what = b"%s %d %s" % (injection.epoch.encode(), injection.rule, who)
        cell = self._live.budget_cells[injection.experiment]
        match self._live.budget.grant(cell, what, injection.limit, self._live.clock()):
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
                await self._one(flow, exchange, injection)

    async def _one(self, flow: http.HTTPFlow, exchange: Exchange, injection: Injection) -> None:
        claim = self.activate(exchange, injection)
        if claim is None:
            return
        lasts = False
        try:
            lasts = await perform(flow, exchange, claim)
        finally:
            if not lasts:
                claim.release()

    def _count(self, exchange: Exchange, injection: Injection, result: FaultResult) -> None:
        name, listener = injection.experiment, exchange.route.name
        add = self._live.counters.add
        add(dose_key(name, injection.epoch, injection.rule, result))
        if result is not FaultResult.PLANNED:
            add(fault_key(name, listener, injection.fault, result))
