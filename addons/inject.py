"""decide -> perform: carry out the faults that were drawn for a request."""

import time
from collections.abc import Coroutine
from typing import assert_never

from mitmproxy import http
from mitmproxy.net.http import status_codes

from addons.exchange import Exchange, exchange_of
from addons.live import Live
from proxy import tally
from proxy.actions import Delay, Disconnect, Hang, Repeat, Respond, Rewrite, Throttle, Truncate
from proxy.plan import Injection

type Waiting = Coroutine[None, None, None]


class Inject:
    """Performs actions before the upstream (at the request's head) and after (at the answer's)."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def requestheaders(self, flow: http.HTTPFlow) -> Waiting | None:
        flow.request.stream = True
        exchange = exchange_of(flow)
        if exchange is None or not exchange.decision.before:
            return None
        return self._perform(flow, exchange, exchange.decision.before)

    def responseheaders(self, flow: http.HTTPFlow) -> Waiting | None:
        exchange = exchange_of(flow)
        if flow.response is None or (exchange is not None and exchange.replaced):
            return None
        flow.response.stream = True
        if exchange is None or not exchange.decision.after:
            return None
        return self._perform(flow, exchange, exchange.decision.after)

    async def _perform(
        self, flow: http.HTTPFlow, exchange: Exchange, injections: tuple[Injection, ...]
    ) -> None:
        for injection in injections:
            if exchange.replaced or not flow.live:
                return
            await self._one(flow, exchange, injection)

    async def _one(self, flow: http.HTTPFlow, exchange: Exchange, injection: Injection) -> None:
        live = self._live
        self._count(exchange, injection, "planned")
        if not live.allows(injection):
            self._count(exchange, injection, "failed")
            return
        limits = live.plan.limits
        slot = live.slots[injection.experiment]
        if not live.budget.take(slot, limits.active_faults, injection.most):
            self._count(exchange, injection, "overflow")
            return
        try:
            self._count(exchange, injection, "performed")
            await self._act(flow, exchange, injection)
        finally:
            live.budget.give()

    async def _act(self, flow: http.HTTPFlow, exchange: Exchange, injection: Injection) -> None:
        match injection.action:
            case Delay(seconds):
                await self._live.hold(injection, seconds, exchange.holds)
            case Respond(status, headers, body):
                exchange.replaced = True
                flow.request.stream = False  # nobody upstream will read it
                flow.response = _answer(status, headers, body)
            case Disconnect(reset):
                if reset and not flow.request.is_http2:
                    exchange.peer.reset()
                flow.kill()
            case Hang(seconds):
                if await self._live.hold(injection, seconds, exchange.holds):
                    flow.kill()
            case Throttle() | Truncate() | Rewrite() | Repeat():
                self._count(exchange, injection, "failed")
            case other:
                assert_never(other)

    def _count(self, exchange: Exchange, injection: Injection, result: str) -> None:
        name, listener = injection.experiment, exchange.route.name
        add = self._live.tally.add
        add(tally.dose(name, injection.epoch, injection.rule, result))
        if result != "planned":
            add(tally.faults(name, listener, injection.fault, result))


def _answer(status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> http.Response:
    has_body = status not in (204, 304)
    framing = ((b"content-length", str(len(body)).encode()),) if has_body else ()
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
