"""perform -> observe: count every exchange once, as its client saw it."""

from collections.abc import Callable

from mitmproxy import http

from counterfault.addons.pipeline.exchange import Exchange, exchange_of
from counterfault.addons.state import WorkerState
from counterfault.proxy.measurement.exchanges import count_exchange


class Observe:
    """Per-cohort requests, durations and steady-state events."""

    def __init__(self, live: WorkerState, finish: Callable[[Exchange], None]) -> None:
        """`finish`: called at the end of an exchange that a fault still holds."""
        self._live, self._finish = live, finish

    def response(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is not None and flow.response is not None:
            self.ended(exchange, flow.response.status_code)

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = exchange_of(flow)
        if exchange is not None:
            self.ended(exchange, exchange.status)

    def ended(self, exchange: Exchange, status: int | None) -> None:
        """The exchange is over; `status` None: the client got no whole answer."""
        if exchange.over:
            return
        exchange.over = True
        exchange.peer.exchanges.discard(exchange)
        if exchange.held_faults or exchange.pending:
            self._finish(exchange)
        duration = self._live.clock() - exchange.started
        enrolment = exchange.enrolment
        count_exchange(
            self._live.counters,
            exchange.route.name,
            exchange.experiment,
            exchange.cohort,
            status,
            duration,
            enrolment.replicate if enrolment else 0,
            exchange.measured,
        )
