"""Applies faults to single messages of a WebSocket; the order of the messages is kept."""

from dataclasses import dataclass, field

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import PacedQueue, Wait, wait_aside
from counterfault.addons.pipeline.exchange import Exchange, MessageFaults
from counterfault.addons.websocket.frames import FrameParser, Segment
from counterfault.proxy.engines.plan import EachMessage
from counterfault.proxy.faults.actions import Delay, Disconnect, Hang

type Generator[T] = layer.CommandGenerator[T]


@dataclass(frozen=True, slots=True)
class Ending:
    """The place in a queue of messages where a fault ends the connection."""

    reset: bool


@dataclass(eq=False, slots=True)
class MessageDirection:
    """The messages that one end sends."""

    when: str
    """`before` for the client's messages, `after` for the server's: which rules apply to them."""
    queue: PacedQueue
    parser: FrameParser = field(default_factory=FrameParser)
    fault: ActiveFault | None = None
    """The fault that delays the present message."""
    seconds: float = 0.0
    """How long the present message is delayed."""
    dropped: bool = False
    """Whether the present message never arrives."""
    pending_wait: commands.Command | None = None
    """The wait after which the queue goes on."""

    @property
    def unaffected(self) -> bool:
        """Whether no fault holds or drops anything now."""
        return self.queue.empty and self.fault is None and not self.dropped


def is_websocket(response: http.Response) -> bool:
    """Return whether a 101 response upgrades the connection to a WebSocket."""
    return str(response.headers.get("upgrade", "")).lower() == "websocket"


class MessageLayer(layers.TCPLayer):
    """Passes bytes on like a TCP layer, but delays, drops or ends where a message has a fault.

    While no rule applies, bytes are only parsed, so that it is known where the next message begins
    when a rule does.
    """

    def __init__(
        self,
        context: Context,
        exchange: Exchange,
        message_faults: MessageFaults,
        *,
        compressed: bool,
    ) -> None:
        """Pass on what comes.

        Args:
            context: mitmproxy's, with the client's and the server's connection.
            exchange: The exchange of the upgrade.
            message_faults: Performs the faults of messages.
            compressed: Each message may need the earlier ones to be decompressed, so none can be
                dropped.
        """
        super().__init__(context, ignore=True)
        self._exchange, self._message_faults = exchange, message_faults
        self._compressed = compressed
        self._directions = {
            context.client: MessageDirection("before", PacedQueue(message_faults.clock)),
            context.server: MessageDirection("after", PacedQueue(message_faults.clock)),
        }
        self._ended = False

    def relay_messages(self, event: events.Event) -> Generator[None]:
        """Handle an event of either connection, or the end of a wait."""
        if self._ended:
            return
        if isinstance(event, events.HookCompleted):
            for direction in self._directions.values():
                if direction.pending_wait is event.command:
                    direction.pending_wait = None
                    yield from self._drain(direction)
        elif isinstance(event, events.DataReceived):
            direction = self._directions[event.connection]
            rules = self._message_faults.message_rules(self._exchange)
            if not rules and direction.unaffected:
                direction.parser.skip(event.data)
                yield from super().relay_messages(event)
                return
            rules = tuple(each for each in rules if each.rule.when == direction.when)
            for segment in direction.parser.feed(event.data):
                self._queue_segment(direction, event.connection, segment, rules)
            yield from self._drain(direction)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._handle_close(event)

    def _handle_close(self, event: events.ConnectionClosed) -> Generator[None]:
        direction = self._directions[event.connection]
        rest = direction.parser.take_rest()
        if rest:
            direction.queue.put(events.DataReceived(event.connection, rest))
        direction.queue.put(event)
        other = next(d for c, d in self._directions.items() if c is not event.connection)
        # The end that has closed reads no more messages.
        other.queue.clear()
        yield from self._drain(direction)

    def _queue_segment(
        self,
        direction: MessageDirection,
        source: Connection,
        segment: Segment,
        rules: tuple[EachMessage, ...],
    ) -> None:
        if segment.begins:
            self._draw_faults(direction, rules)
        if segment.data and (segment.control or not direction.dropped):
            event = events.DataReceived(source, segment.data)
            direction.queue.put(event, direction.fault, direction.seconds)
        if segment.ends:
            direction.fault, direction.seconds, direction.dropped = None, 0.0, False

    def _draw_faults(self, direction: MessageDirection, rules: tuple[EachMessage, ...]) -> None:
        """Draw the faults of a message that begins."""
        for each in rules:
            fault = self._message_faults.draw(self._exchange, each)
            if fault is None:
                continue
            if self._compressed and isinstance(fault.injection.action, Hang):
                fault.release()  # not performed: the later messages could not be read
                continue
            fault.performed()
            match fault.injection.action:
                case Delay(seconds):
                    direction.seconds += seconds
                    if direction.fault is None:
                        direction.fault = fault
                        continue
                case Disconnect(reset):
                    direction.queue.put(Ending(reset))
                case Hang():
                    direction.dropped = True
                case _:  # Fault.messages says which actions get here
                    pass
            fault.release()

    def _drain(self, direction: MessageDirection) -> Generator[None]:
        while direction.pending_wait is None and (following := direction.queue.next()) is not None:
            if isinstance(following, Wait):
                direction.pending_wait = wait_aside(self, following)  # the other direction goes on
                yield direction.pending_wait
            elif isinstance(following, Ending):
                yield from self._end(following)
                return
            else:
                yield from super().relay_messages(following)

    def _end(self, ending: Ending) -> Generator[None]:
        self._ended = True
        for direction in self._directions.values():
            direction.queue.clear()
        if ending.reset:
            self._exchange.peer.reset()
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
