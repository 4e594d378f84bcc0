"""decide -> perform: carry out the faults that were drawn for a request."""

import time
from collections.abc import Coroutine
from functools import partial
from typing import assert_never

from mitmproxy import http
from mitmproxy.net.http import status_codes
from mitmproxy.net.http.http1 import expected_http_body_size

from addons.bodies import Cut, Flips
from addons.claim import Claim
from addons.exchange import Exchange, exchange_of
from addons.live import Live
from addons.shape import KEEP, Shape, edited
from proxy import tally
from proxy.actions import (
    Delay,
    Disconnect,
    Edit,
    Flip,
    Hang,
    Patch,
    Repeat,
    Replace,
    Respond,
    Rewrite,
    Throttle,
    Truncate,
)
from proxy.cohorts import Enrolment
from proxy.engines.budget import Grant
from proxy.plan import EachMessage, Injection, Plan

type Waiting = Coroutine[None, None, None]

_NO_EDIT = Edit()


class Inject:
    """Performs actions before the upstream (at the request's head) and after (at the answer's)."""

    def __init__(self, live: Live) -> None:
        self._live, self.clock = live, live.clock

    def requestheaders(self, flow: http.HTTPFlow) -> Waiting | None:
        flow.request.stream = True
        exchange = exchange_of(flow)
        if exchange is None or exchange.enrolment is None:
            return None
        if "upgrade" in flow.request.headers and self._loses(exchange, exchange.enrolment):
            # A message that is lost would have told how to decompress the next.
            edited(flow.request.headers, Edit((b"sec-websocket-extensions",)))
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
        if exchange.shape is not None:
            exchange.shape.edit(flow.response.headers)
        if not exchange.pending:
            return None
        return self._perform(flow, exchange, exchange.decision.after)

    def ended(self, exchange: Exchange) -> None:
        """What was drawn and could not be tried any more has failed; nothing is held any more."""
        for injection in exchange.pending:
            self._count(exchange, injection, "planned")
            self._count(exchange, injection, "failed")
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
        if enrolment.user is not None:
            edit = plan.edits[enrolment.experiment]
            self._live.tally.meet(enrolment.experiment, edit, enrolment.cohort, enrolment.user)
        return plan.messages(listener, request, enrolment)

    def _loses(self, exchange: Exchange, enrolment: Enrolment) -> bool:
        plan, listener = self._live.plan, exchange.route.name
        return listener in plan.routes and plan.loses(listener, exchange.request, enrolment)

    def draw(self, exchange: Exchange, each: EachMessage) -> Claim | None:
        """A claim to a fault of a message, which the caller has to release."""
        injection = each.draw(self._live.random)
        return None if injection is None else self.claim(exchange, injection)

    def claim(self, exchange: Exchange, injection: Injection) -> Claim | None:
        """A claim to a fault, which its caller has to release; None is counted."""
        live = self._live
        self._count(exchange, injection, "planned")
        if not live.allows(injection):
            self._count(exchange, injection, "failed")
            return None
        limits = live.plan.limits
        slot = live.slots[injection.experiment]
        if not live.budget.take(slot, limits.active_faults, injection.most):
            self._count(exchange, injection, "overflow")
            return None
        return Claim(live, injection, partial(self._count, exchange), exchange.holds)

    def _due(self, exchange: Exchange, injection: Injection) -> bool:
        """Whether a limit of the dose leaves room for one more."""
        if injection.limit is None:
            return True
        who = b""
        if injection.limit.every is None:
            enrolled = exchange.enrolment
            who = exchange.unit or (b"%d" % enrolled.replicate if enrolled else b"")
        what = b"%s %d %s" % (injection.epoch.encode(), injection.rule, who)
        slot = self._live.slots[injection.experiment]
        match self._live.budget.grant(slot, what, injection.limit, self._live.clock()):
            case Grant.YES:
                return True
            case Grant.NO:
                return False
            case Grant.FULL:
                self._count(exchange, injection, "planned")
                self._count(exchange, injection, "overflow")
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
        claim = self.claim(exchange, injection)
        if claim is None:
            return
        lasts = False
        try:
            lasts = await self._act(flow, exchange, claim)
        finally:
            if not lasts:
                claim.release()

    async def _act(self, flow: http.HTTPFlow, exchange: Exchange, claim: Claim) -> bool:
        """Perform a fault; True if it lasts beyond this moment."""
        match claim.injection.action:
            case Delay(seconds):
                claim.performed()
                await claim.wait(seconds)
            case Respond(status, headers, body):
                claim.performed()
                exchange.replaced = True
                flow.request.stream = False  # nobody upstream will read it
                flow.response = _answer(flow.request, status, headers, body)
            case Disconnect(reset):
                claim.performed()
                if reset and not flow.request.is_http2:
                    exchange.peer.reset()
                flow.kill()
            case Hang(seconds):
                claim.performed()
                if await claim.wait(seconds):
                    flow.kill()
            case Throttle(up, down):
                shape = self._shape(exchange)
                if up is not None:
                    shape.slow_up(up, claim)
                if down is not None:
                    shape.slow_down(down, claim)
                return True
            case Truncate() as truncate:
                return self._truncate(flow, exchange, truncate, claim)
            case Rewrite() as rewrite:
                return self._rewrite(flow, exchange, rewrite, claim)
            case Repeat(times):
                return self._repeat(flow, exchange, times, claim)
            case other:
                assert_never(other)
        return False

    def _truncate(
        self, flow: http.HTTPFlow, exchange: Exchange, truncate: Truncate, claim: Claim
    ) -> bool:
        size = _body_size(flow)
        after = truncate.after
        if size is not None:
            after = int(size * truncate.share) if truncate.share is not None else after
            if after is None or after >= size:
                return False
        cut = Cut(after, truncate.share or 0.0, KEEP)
        self._shape(exchange).changes.append((cut, claim))
        return True

    def _rewrite(
        self, flow: http.HTTPFlow, exchange: Exchange, rewrite: Rewrite, claim: Claim
    ) -> bool:
        if rewrite.body is not None:
            return _body_size(flow) != 0 and self._body(flow, exchange, rewrite.body, claim)
        if rewrite.request != _NO_EDIT:
            claim.performed()
            edited(flow.request.headers, rewrite.request)
        if rewrite.response == _NO_EDIT:
            return False
        self._shape(exchange).edits.append((rewrite.response, claim))
        return True

    def _body(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        body: Flip | Replace | Patch,
        claim: Claim,
    ) -> bool:
        if flow.response is None:
            return False
        match body:
            case Flip():
                flips = Flips(body, claim.performed)
                self._shape(exchange).changes.append((flips, claim))
                return True
            case Replace(content):
                claim.performed()
                exchange.replaced = True
                flow.response = _other_body(flow.response, content)
                return False
            case Patch():
                return self._patch(flow, flow.response, exchange, body, claim)
            case other:
                assert_never(other)

    def _patch(
        self,
        flow: http.HTTPFlow,
        response: http.Response,
        exchange: Exchange,
        patch: Patch,
        claim: Claim,
    ) -> bool:
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        if encoded or (_body_size(flow) or 0) > KEEP:
            return False
        response.stream = False
        self._shape(exchange).patches.append((patch, claim))
        return True

    def _repeat(self, flow: http.HTTPFlow, exchange: Exchange, times: int, claim: Claim) -> bool:
        size = flow.request.headers.get("content-length", "0")
        if "upgrade" in flow.request.headers or not size.isdecimal() or int(size) > KEEP:
            return False
        self._shape(exchange).copies.append((times - 1, claim))
        return True

    def _shape(self, exchange: Exchange) -> Shape:
        exchange.shape = exchange.shape or Shape(self._live.clock)
        return exchange.shape

    def _count(self, exchange: Exchange, injection: Injection, result: str) -> None:
        name, listener = injection.experiment, exchange.route.name
        add = self._live.tally.add
        add(tally.dose(name, injection.epoch, injection.rule, result))
        if result != "planned":
            add(tally.faults(name, listener, injection.fault, result))


def _body_size(flow: http.HTTPFlow) -> int | None:
    """Bytes of the answer's body; None if its head does not say."""
    try:
        size = expected_http_body_size(flow.request, flow.response)
    except ValueError:
        return None
    return None if size is None or size < 0 else size


def _answer(
    request: http.Request, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes
) -> http.Response:
    has_body = status not in (204, 304)
    # gRPC's Trailers-Only is a head with END_STREAM, which says it all.
    says_size = has_body and (body or not request.is_http2)
    framing = ((b"content-length", str(len(body)).encode()),) if says_size else ()
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=status,
        reason=status_codes.RESPONSES.get(status, "").encode(),
        headers=http.Headers((*headers, *framing)),
        content=body if has_body else b"",
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def _other_body(response: http.Response, content: bytes) -> http.Response:
    """The same answer, but for its body and what frames and encodes it."""
    changed = response.copy()
    size = ((b"content-length", b"%d" % len(content)),)
    gone = (b"content-length", b"transfer-encoding", b"content-encoding", b"trailer")
    edited(changed.headers, Edit(gone, size))
    changed.data.content = content
    return changed
