"""The layer of a raw connection: relays its bytes, which faults hold back, cut short or drop."""

from typing import assert_never

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import Wait, wait_aside
from counterfault.addons.mitm.private import queued_bytes
from counterfault.addons.pipeline.exchange import Peer
from counterfault.addons.pipeline.upstreams import endpoint_of
from counterfault.addons.tcp.direction import Direction
from counterfault.addons.tcp.enrolment import ConnectionEnrolment, TcpContext
from counterfault.addons.tcp.turns import TurnCounter
from counterfault.proxy.engines.plan import Injection
from counterfault.proxy.faults.actions import (
    Delay,
    Disconnect,
    Hang,
    Repeat,
    Respond,
    Rewrite,
    Throttle,
    Truncate,
)

type Generator[T] = layer.CommandGenerator[T]


class SidecarTcp(layer.Layer):
    """Relays bytes both ways, and performs the faults of the connection's experiment."""

    def __init__(self, context: Context, peer: Peer, tcp: TcpContext) -> None:
        """Prepare for a client; its first event connects it to an upstream."""
        super().__init__(context)
        self._peer, self._upstreams = peer, tcp.upstreams
        self._enrolment = ConnectionEnrolment(context, peer, tcp)
        self.turns = TurnCounter(tcp.state, self._enrolment.exchange, tcp.ended)
        self._up, self._down = Direction(tcp.state.clock), Direction(tcp.state.clock)
        self._hang: ActiveFault | None = None
        self._hang_wait: commands.Command | None = None
        self._connected = self._over = self._reset_after_hang = False

    def held_bytes(self, source: Connection | None) -> int:
        """Return how many bytes that came from `source` are held back."""
        if source is self.context.client:
            return self._up.queue.size + queued_bytes(self)
        return self._down.queue.size if source is self.context.server else 0

    def client_left(self) -> None:
        """Release the faults that hold something for a client that has left."""
        for direction in (self._up, self._down):
            direction.queue.clear()
        self._enrolment.end()

    def start(self, event: events.Event) -> Generator[None]:
        """Enrol the connection, and connect it unless a fault has it hang."""
        self._handle_event = self.relay_messages  # type: ignore[method-assign]
        yield from self._enrol()
        if self._hang is None:
            yield from self._connect()

    _handle_event = start

    def relay_messages(self, event: events.Event) -> Generator[None]:
        """Handle an event after the first."""
        if self._over:
            return
        if isinstance(event, events.HookCompleted):
            yield from self._wait_ended(event.command)
        elif isinstance(event, events.DataReceived):
            yield from self._data_received(event)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._connection_closed(event)

    def _connection_closed(self, event: events.ConnectionClosed) -> Generator[None]:
        from_client = event.connection is self.context.client
        if self._hang is not None and from_client:
            # As with HTTP, a client that has closed its half no longer waits.
            self._hang.release()
            yield from self._end(reset=False)
            return
        self._direction(event.connection).queue.put(event)
        # An end that is closed altogether reads no more: drop what is on its way there.
        if event.connection.state.name == "CLOSED":
            (self._down if from_client else self._up).queue.clear()
        yield from self._flow(event.connection)

    def _data_received(self, event: events.DataReceived) -> Generator[None]:
        yield from self._enrol()
        if event.connection is self.context.client:
            self.turns.begin()
        direction = self._direction(event.connection)
        fault, seconds = self._enrolment.draw_delay(direction.delay_rules)
        direction.queue.put(event, fault, seconds)
        yield from self._flow(event.connection)

    def _enrol(self) -> Generator[None]:
        """Begin the connection's faults anew whenever a run begins or moves on."""
        injections = self._enrolment.refresh()
        if injections is None:
            return
        self._up.delay_rules = self._enrolment.delay_rules("before")
        self._down.delay_rules = self._enrolment.delay_rules("after")
        for injection in injections:
            if self._hang is None:
                yield from self._perform(injection)

    def _perform(self, injection: Injection) -> Generator[None]:
        fault = self._enrolment.activate(injection)
        if fault is None:
            return
        match injection.action:
            case Disconnect(reset):
                # Not at once: a client that has only just connected cannot be closed yet.
                yield from self._hang_up(fault, 0.0, reset)
            case Hang(seconds):
                yield from self._hang_up(fault, seconds)
            case Throttle(up, down):
                if up is not None:
                    self._up.queue.limit_rate(up, fault)
                if down is not None:
                    self._down.queue.limit_rate(down, fault)
            case Truncate(after, _):
                self._down.cut_after(after or 0, fault)  # `check` refuses a share here
            case Delay() | Respond() | Rewrite() | Repeat():
                fault.release()  # a delay is drawn for each piece; `check` refuses the others here
            case other:
                assert_never(other)

    def _hang_up(self, fault: ActiveFault, seconds: float, reset: bool = False) -> Generator[None]:
        """Pass nothing on for some seconds, then close the connection."""
        fault.performed()
        self._hang, self._reset_after_hang = fault, reset
        self._hang_wait = wait_aside(self, Wait(seconds, fault))
        yield self._hang_wait

    def _wait_ended(self, command: commands.Command) -> Generator[None]:
        if command is self._hang_wait and self._hang is not None:
            yield from self._hang_ended(self._hang)
            return
        ends = ((self._up, self.context.client), (self._down, self.context.server))
        for direction, source in ends:
            if direction.waiting is command:
                direction.waiting = None
                yield from self._flow(source)

    def _hang_ended(self, fault: ActiveFault) -> Generator[None]:
        cancelled = fault.over
        fault.release()
        self._hang = self._hang_wait = None
        if cancelled:
            yield from self._resume()
        else:
            self.turns.begin()  # a client that has sent nothing yet gets no answer either
            yield from self._end(self._reset_after_hang)

    def _resume(self) -> Generator[None]:
        """Go on after a hang that was cancelled, as if it had not been."""
        if not self._connected:
            yield from self._connect()
        if not self._over:
            yield from self._flow(self.context.client)
            yield from self._flow(self.context.server)

    def _flow(self, source: Connection) -> Generator[None]:
        """Pass on what came from `source` and may go on now."""
        direction = self._direction(source)
        while self._connected and not self._over and self._hang is None:
            following, cut = direction.next()
            if following is None:
                return
            if isinstance(following, Wait):
                direction.waiting = wait_aside(self, following)
                yield direction.waiting
                continue
            yield from self._pass(direction, following)
            if cut is not None:
                cut.performed()
                cut.release()
                yield from self._end(reset=False)

    def _pass(self, direction: Direction, event: events.Event) -> Generator[None]:
        if direction is self._down:
            self.turns.end(answered=isinstance(event, events.DataReceived))
        if not isinstance(event, events.DataReceived):
            yield from self._pass_end(direction)
        elif event.data:
            yield commands.SendData(self._target(direction), event.data)

    def _pass_end(self, direction: Direction) -> Generator[None]:
        """Close one half; the connection is over once both ends have come through.

        That both ends have closed is not enough, since one of them may still be held.
        """
        direction.ended = True
        if self._up.ended and self._down.ended:
            yield from self._end(reset=False)
        else:
            yield commands.CloseTcpConnection(self._target(direction), half_close=True)

    def _connect(self) -> Generator[None]:
        """Connect to the first node that accepts; a unit's own node is tried first."""
        exchange = self._enrolment.exchange
        nodes = exchange.route.nodes(exchange.unit or b"")
        if (yield from self._upstreams.connect(nodes, self._connect_to)) is None:
            self._connected = True
            yield from self._flow(self.context.client)
        else:
            yield from self._end(reset=False)

    def _connect_to(self, node: str) -> Generator[str | None]:
        address, _ = endpoint_of(node)
        self.context.server = Server(address=address)
        error: str | None = yield commands.OpenConnection(self.context.server)
        return error

    def _end(self, reset: bool) -> Generator[None]:
        self._over = True
        self.turns.end(answered=False)
        for direction in (self._up, self._down):
            direction.queue.clear()
        if reset:
            self._peer.reset()
        if self._connected:
            yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)

    def _direction(self, source: Connection) -> Direction:
        return self._up if source is self.context.client else self._down

    def _target(self, direction: Direction) -> Connection:
        return self.context.server if direction is self._up else self.context.client
