"""perform -> observe: counts every exchange once, as its client saw it."""

from collections.abc import Callable

from mitmproxy import http

from counterfault.addons.pipeline.exchange import Exchange, exchange_of
from counterfault.addons.state import WorkerState
from counterfault.proxy.measurement.exchanges import count_exchange


class Observe:
    """Counts requests, durations and steady-state events by cohort."""

    def __init__(self, state: WorkerState, finish: Callable[[Exchange], None]) -> None:
        """`finish` is called at the end of an exchange that still has faults, held or pending."""
        self._state, self._finish = state, finish

    def response(self, flow: http.HTTPFlow) -> None:
        """Handle mitmproxy's hook: the client has the whole response."""
        exchange = exchange_of(flow)
        if exchange is not None and flow.response is not None:
            self.exchange_ended(exchange, flow.response.status_code)

    def error(self, flow: http.HTTPFlow) -> None:
        """Handle mitmproxy's hook: the exchange has failed, or the client has left."""
        exchange = exchange_of(flow)
        if exchange is not None:
            self.exchange_ended(exchange, exchange.status)

    def exchange_ended(self, exchange: Exchange, status: int | None) -> None:
        """Count an exchange, the first time; `status` is None if the client got no whole answer."""
        if exchange.over:
            return
        exchange.over = True
        exchange.peer.exchanges.discard(exchange)
        if exchange.held_faults or exchange.pending:
            self._finish(exchange)
        duration = self._state.clock() - exchange.started
        enrolment, open_key = exchange.enrolment, exchange.open_key
        count_exchange(
            self._state.counters,
            exchange.route.name,
            exchange.experiment,
            exchange.cohort,
            status,
            duration,
            enrolment.replicate if enrolment else 0,
            exchange.measured,
            open_key.slot if open_key else 0,
        )
        if open_key is not None:  # last: its counts may be forgotten from now on
            self._state.counters.end(open_key)
