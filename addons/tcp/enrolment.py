"""The experiment that a raw connection takes part in, and the faults that this means for it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from mitmproxy.proxy.context import Context

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.pipeline.exchange import Exchange, Peer
from counterfault.addons.pipeline.inject import Inject
from counterfault.addons.pipeline.upstreams import Upstreams
from counterfault.addons.state import WorkerState
from counterfault.addons.tcp.turns import NO_REQUEST, new_exchange
from counterfault.proxy.engines.plan import EachMessage, Injection
from counterfault.proxy.faults.actions import Delay

_numbers = count()


@dataclass(frozen=True, slots=True)
class TcpContext:
    """What all raw connections of a worker share."""

    state: WorkerState
    inject: Inject
    ended: Callable[[Exchange, int | None], None]
    """Called with each turn that has ended and its status, or None without an answer."""
    upstreams: Upstreams


class ConnectionEnrolment:
    """Enrols a raw connection as a whole; all its bytes are those of one unit.

    The unit is the client's address, where the listener says so, else the connection itself.
    """

    def __init__(self, context: Context, peer: Peer, tcp: TcpContext) -> None:
        """Prepare for the client of `context`; `refresh` enrols it."""
        self._state, self._inject = tcp.state, tcp.inject
        self.exchange = new_exchange(peer, tcp.state)
        """The connection as a whole; it is not counted, its turns are."""
        self.exchange.unit = _unit(context, peer)
        self._known: tuple[str, str] | None = None

    def refresh(self) -> tuple[Injection, ...] | None:
        """Enrol the connection by the present plan.

        Returns the faults that begin now, or None if neither its experiment nor the epoch of the
        run has changed since the last call.
        """
        state, exchange = self._state, self.exchange
        plan = state.plan
        exchange.route = plan.routes.get(exchange.route.name, exchange.route)
        enrolment = plan.assign(NO_REQUEST, exchange.unit, None) if state.leased() else None
        exchange.enrolment = enrolment
        arm = exchange.route.arms.get(enrolment.experiment) if enrolment else None
        known = (arm.name, arm.epoch) if arm else None
        if known == self._known:
            return None
        self._known = known
        if enrolment is None or arm is None:
            return ()
        state.count_user(enrolment)
        decision = plan.decide(exchange.route.name, NO_REQUEST, enrolment, state.random)
        injections = decision.before + decision.after
        # Delays are drawn for each piece of data, see `delay_rules`.
        return tuple(i for i in injections if not isinstance(i.action, Delay))

    def delay_rules(self, when: str) -> tuple[EachMessage, ...]:
        """Return the rules that delay each piece of data: `before` upwards, `after` downwards."""
        return tuple(each for each in self._delay_rules() if each.rule.when == when)

    def draw_delay(self, rules: Iterable[EachMessage]) -> tuple[ActiveFault | None, float]:
        """Draw how long a piece of data waits, in seconds, and the fault that holds it."""
        held, seconds = None, 0.0
        for each in rules:
            fault = self._inject.draw(self.exchange, each)
            if fault is None or not isinstance(fault.injection.action, Delay):
                continue
            fault.performed()
            seconds += fault.injection.action.seconds
            if held is None:
                held = fault
            else:
                fault.release()
        return held, seconds

    def activate(self, injection: Injection) -> ActiveFault | None:
        """Begin a fault, as `Inject.activate` does."""
        return self._inject.activate(self.exchange, injection)

    def end(self) -> None:
        """Release all faults that the connection holds."""
        self._inject.exchange_ended(self.exchange)

    def _delay_rules(self) -> Iterator[EachMessage]:
        exchange = self.exchange
        enrolment = exchange.enrolment
        arm = exchange.route.arms.get(enrolment.experiment) if enrolment else None
        if arm is None or enrolment is None or not arm.hits(enrolment):
            return
        for number, rule in arm.rules:
            if isinstance(rule.fault.act(NO_REQUEST, lambda: 0.0), Delay):
                yield EachMessage(arm, number, rule, NO_REQUEST)


def _unit(context: Context, peer: Peer) -> bytes:
    """The client's address, or something that no other connection has."""
    host, port = context.client.peername[:2]
    if peer.route.by_address:
        return str(host).encode()
    return f"{host}:{port} {context.client.timestamp_start} {next(_numbers)}".encode()
