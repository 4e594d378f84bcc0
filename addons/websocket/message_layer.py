"""A WebSocket whose messages get faults, each on its own; their order is kept."""

from dataclasses import dataclass, field

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import PacedQueue, Wait, wait_aside
from counterfault.addons.pipeline.exchange import Exchange, MessageFaults
from counterfault.addons.websocket.frames import Frames, Segment
from counterfault.proxy.engines.plan import EachMessage
from counterfault.proxy.faults.actions import Delay, Disconnect, Hang

type Generator[T] = layer.CommandGenerator[T]


@dataclass(frozen=True, slots=True)
class End:
    """Here the connection ends."""

    reset: bool


@dataclass(eq=False, slots=True)
class MessageDirection:
    """What one end sends."""

    when: str
    """Which rules are for its messages."""
    valve: PacedQueue
    frames: Frames = field(default_factory=Frames)
    claim: ActiveFault | None = None
    """Delays the present message."""
    seconds: float = 0.0
    lost: bool = False
    """The present message never arrives."""
    waits: commands.Command | None = None

    @property
    def free(self) -> bool:
        """Whether nothing is held back, and no message is dealt with."""
        return self.valve.empty and self.claim is None and not self.lost


def by_message(response: http.Response) -> bool:
    """Whether an upgrade is to a WebSocket: faults may come for its messages later."""
    return str(response.headers.get("upgrade", "")).lower() == "websocket"


class MessageLayer(layers.TCPLayer):
    """Relays bytes as a TCP layer does; faults may hold or lose single messages."""

    def __init__(
        self,
        context: Context,
        exchange: Exchange,
        message_faults: MessageFaults,
        *,
        compressed: bool,
    ) -> None:
        """`compressed`: each message may need those before it to be understood."""
        super().__init__(context, ignore=True)
        self._exchange, self._message_faults = exchange, message_faults
        self._compressed = compressed
        self._directions = {
            context.client: MessageDirection("before", PacedQueue(message_faults.clock)),
            context.server: MessageDirection("after", PacedQueue(message_faults.clock)),
        }
        self._over = False

    def relay_messages(self, event: events.Event) -> Generator[None]:
        """Handle an event: pass its bytes on, as messages that faults may hold or lose."""
        if self._over:
            return
        if isinstance(event, events.HookCompleted):
            for direction in self._directions.values():
                if direction.waits is event.command:
                    direction.waits = None
                    yield from self._flow(direction)
        elif isinstance(event, events.DataReceived):
            direction = self._directions[event.connection]
            rules = self._message_faults.message_rules(self._exchange)
            if not rules and direction.free:
                direction.frames.watch(event.data)
                yield from super().relay_messages(event)
                return
            rules = tuple(each for each in rules if each.rule.when == direction.when)
            for segment in direction.frames.feed(event.data):
                self._segment(direction, event.connection, segment, rules)
            yield from self._flow(direction)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._closed(event)

    def _closed(self, event: events.ConnectionClosed) -> Generator[None]:
        direction = self._directions[event.connection]
        rest = direction.frames.rest()
        if rest:
            direction.valve.put(events.DataReceived(event.connection, rest))
        direction.valve.put(event)
        other = next(d for c, d in self._directions.items() if c is not event.connection)
        # The end that has left reads no more messages.
        other.valve.clear()
        yield from self._flow(direction)

    def _segment(
        self,
        direction: MessageDirection,
        source: Connection,
        segment: Segment,
        rules: tuple[EachMessage, ...],
    ) -> None:
        if segment.begins:
            self._begin(direction, rules)
        if segment.data and (segment.control or not direction.lost):
            event = events.DataReceived(source, segment.data)
            direction.valve.put(event, direction.claim, direction.seconds)
        if segment.ends:
            direction.claim, direction.seconds, direction.lost = None, 0.0, False

    def _begin(self, direction: MessageDirection, rules: tuple[EachMessage, ...]) -> None:
        """A message begins: what happens to it?"""
        for each in rules:
            claim = self._message_faults.draw(self._exchange, each)
            if claim is None:
                continue
            if self._compressed and isinstance(claim.injection.action, Hang):
                claim.release()  # it has failed: those after it could not be read
                continue
            claim.performed()
            match claim.injection.action:
                case Delay(seconds):
                    direction.seconds += seconds
                    if direction.claim is None:
                        direction.claim = claim
                        continue
                case Disconnect(reset):
                    direction.valve.put(End(reset))
                case Hang():
                    direction.lost = True
                case _:  # Fault.messages says which faults get here
                    pass
            claim.release()

    def _flow(self, direction: MessageDirection) -> Generator[None]:
        while direction.waits is None and (following := direction.valve.next()) is not None:
            if isinstance(following, Wait):
                direction.waits = wait_aside(self, following)  # the other direction goes on
                yield direction.waits
            elif isinstance(following, End):
                yield from self._end(following)
                return
            else:
                yield from super().relay_messages(following)

    def _end(self, end: End) -> Generator[None]:
        self._over = True
        for direction in self._directions.values():
            direction.valve.clear()
        if end.reset:
            self._exchange.peer.reset()
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
