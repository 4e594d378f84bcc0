"""A raw connection: enrolled as a whole, its bytes held back, cut short or dropped by faults."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import assert_never

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import Wait, wait_aside
from counterfault.addons.mitm.private import queued_bytes
from counterfault.addons.pipeline.exchange import Exchange, Peer
from counterfault.addons.pipeline.inject import Inject
from counterfault.addons.pipeline.upstreams import Upstreams, endpoint_of
from counterfault.addons.state import WorkerState
from counterfault.addons.tcp.direction import Direction
from counterfault.addons.tcp.turns import NOTHING, Turns, exchange
from counterfault.proxy.engines.plan import EachMessage, Injection
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

_numbers = count()


@dataclass(frozen=True, slots=True)
class Raw:
    """What all raw connections of a worker have in common."""

    live: WorkerState
    inject: Inject
    ended: Callable[[Exchange, int | None], None]
    upstreams: Upstreams


class SidecarTcp(layer.Layer):
    """Relays bytes both ways, as the faults of the connection's cohort have it."""

    def __init__(self, context: Context, peer: Peer, raw: Raw) -> None:
        super().__init__(context)
        self._peer, self._raw = peer, raw
        self._whole = exchange(peer, raw.live)
        self._whole.unit = _unit(context, peer)
        self.turns = Turns(raw.live, self._whole, raw.ended)
        self._up, self._down = Direction(raw.live.clock), Direction(raw.live.clock)
        self._seen: tuple[str, str] | None = None
        self._hang: ActiveFault | None = None
        self._hung: commands.Command | None = None
        self._connected = self._over = self._resets = False

    def waiting(self, source: Connection | None) -> int:
        """Bytes held back that came from there."""
        if source is self.context.client:
            unread = queued_bytes(self)
            return self._up.valve.size + unread
        return self._down.valve.size if source is self.context.server else 0

    def left(self) -> None:
        """The client is gone, and with it whatever was held for it."""
        for way in (self._up, self._down):
            way.valve.clear()
        self._raw.inject.ended(self._whole)

    def start(self, event: events.Event) -> Generator[None]:
        self._handle_event = self.relay_messages  # type: ignore[method-assign]
        yield from self._enrol()
        if self._hang is None:
            yield from self._connect()

    _handle_event = start

    def relay_messages(self, event: events.Event) -> Generator[None]:
        if self._over:
            return
        if isinstance(event, events.HookCompleted):
            yield from self._woken(event.command)
        elif isinstance(event, events.DataReceived):
            yield from self._data(event)
        elif isinstance(event, events.ConnectionClosed):
            if self._hang is not None and event.connection is self.context.client:
                # As with HTTP: whoever closes his half waits no more.
                self._hang.release()
                yield from self._end(reset=False)
                return
            self._way(event.connection).valve.put(event)
            # Nobody reads any more what is on its way to the end that has left.
            if event.connection.state.name == "CLOSED":
                other = self._down if event.connection is self.context.client else self._up
                other.valve.clear()
            yield from self._flow(event.connection)

    def _data(self, event: events.DataReceived) -> Generator[None]:
        yield from self._enrol()
        if event.connection is self.context.client:
            self.turns.begin()
        way = self._way(event.connection)
        claim, seconds = self._delay(way)
        way.valve.put(event, claim, seconds)
        yield from self._flow(event.connection)

    def _enrol(self) -> Generator[None]:
        """Find the connection's cohort and faults, anew whenever a run begins or moves on."""
        live, whole = self._raw.live, self._whole
        plan = live.plan
        whole.route = plan.routes.get(whole.route.name, whole.route)
        enrolment = plan.assign(NOTHING, whole.unit, None) if live.leased() else None
        whole.enrolment = enrolment
        arm = whole.route.arms.get(enrolment.experiment) if enrolment else None
        seen = (arm.name, arm.epoch) if arm else None
        if seen == self._seen:
            return
        self._seen = seen
        for way in (self._up, self._down):
            way.delays = ()
        if enrolment is None or arm is None:
            return
        if enrolment.user is not None:
            edit = plan.edits[enrolment.experiment]
            live.tally.meet(enrolment.experiment, edit, enrolment.cohort, enrolment.user)
        decision = plan.decide(whole.route.name, NOTHING, enrolment, live.random)
        for injection in decision.before + decision.after:
            if self._hang is None:
                yield from self._perform(injection)
        self._up.delays = tuple(d for d in self._delays() if d.rule.when == "before")
        self._down.delays = tuple(d for d in self._delays() if d.rule.when == "after")

    def _delays(self) -> Iterator[EachMessage]:
        """The rules that are drawn for each piece."""
        whole = self._whole
        enrolled = whole.enrolment
        arm = whole.route.arms.get(enrolled.experiment) if enrolled else None
        if arm is None or enrolled is None or not arm.hits(enrolled):
            return
        for number, rule in arm.rules:
            if rule.latency is not None:  # type: ignore[attr-defined]
                yield EachMessage(arm, number, rule, NOTHING)

    def _perform(self, injection: Injection) -> Generator[None]:
        action = injection.action
        if isinstance(action, Delay):
            return  # drawn for each piece
        claim = self._raw.inject.claim(self._whole, injection)
        if claim is None:
            return
        match action:
            case Disconnect(reset):
                # Not at once: a client that has only just come cannot be closed yet.
                yield from self._hang_up(claim, 0.0, reset)
            case Hang(seconds):
                yield from self._hang_up(claim, seconds)
            case Throttle(up, down):
                if up is not None:
                    self._up.valve.slow(up, claim)
                if down is not None:
                    self._down.valve.slow(down, claim)
            case Truncate(after, _):
                self._down.cut(after or 0, claim)  # a share of it `check` refuses
            case Respond() | Rewrite() | Repeat():  # `check` refuses them here
                claim.release()
            case other:
                assert_never(other)

    def _hang_up(self, claim: ActiveFault, seconds: float, reset: bool = False) -> Generator[None]:
        claim.performed()
        self._hang, self._resets = claim, reset
        self._hung = wait_aside(self, Wait(seconds, claim))
        yield self._hung

    def _delay(self, way: Direction) -> tuple[ActiveFault | None, float]:
        """How long a piece waits, and the claim that holds it."""
        held, seconds = None, 0.0
        for each in way.delays:
            claim = self._raw.inject.draw(self._whole, each)
            if claim is None or not isinstance(claim.injection.action, Delay):
                continue
            claim.performed()
            seconds += claim.injection.action.seconds
            if held is None:
                held = claim
            else:
                claim.release()
        return held, seconds

    def _woken(self, command: commands.Command) -> Generator[None]:
        if command is self._hung and self._hang is not None:
            full = not self._hang.over
            self._hang.release()
            self._hang = self._hung = None
            if full:
                self.turns.begin()  # whoever has come wants an answer, and gets none
                yield from self._end(self._resets)
            else:
                yield from self._resume()
            return
        for way, source in ((self._up, self.context.client), (self._down, self.context.server)):
            if way.waits is command:
                way.waits = None
                yield from self._flow(source)

    def _resume(self) -> Generator[None]:
        """The hang is over before its time: go on as if it had not been."""
        if not self._connected:
            yield from self._connect()
        if not self._over:
            yield from self._flow(self.context.client)
            yield from self._flow(self.context.server)

    def _flow(self, source: Connection) -> Generator[None]:
        """Pass on what may go on."""
        way = self._way(source)
        while self._connected and not self._over and self._hang is None:
            following, cut = way.next()
            if following is None:
                return
            if isinstance(following, Wait):
                way.waits = wait_aside(self, following)
                yield way.waits
                continue
            yield from self._pass(way, following)
            if cut is not None:
                cut.performed()
                cut.release()
                yield from self._end(reset=False)

    def _pass(self, way: Direction, event: events.Event) -> Generator[None]:
        if way is self._down:
            self.turns.end(answered=isinstance(event, events.DataReceived))
        if not isinstance(event, events.DataReceived):
            yield from self._pass_end(way)
        elif event.data:
            yield commands.SendData(self._target(way), event.data)

    def _pass_end(self, way: Direction) -> Generator[None]:
        """Over when both ends are through; when both have come, something may still be held."""
        way.ended = True
        if self._up.ended and self._down.ended:
            yield from self._end(reset=False)
        else:
            yield commands.CloseTcpConnection(self._target(way), half_close=True)

    def _connect(self) -> Generator[None]:
        """To the first node that takes us, sticky by unit."""
        whole = self._whole
        nodes = whole.route.nodes(whole.unit or b"")
        if (yield from self._raw.upstreams.connect(nodes, self._connect_to)) is None:
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
        for way in (self._up, self._down):
            way.valve.clear()
        if reset:
            self._peer.reset()
        if self._connected:
            yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)

    def _way(self, source: Connection) -> Direction:
        return self._up if source is self.context.client else self._down

    def _target(self, way: Direction) -> Connection:
        return self.context.server if way is self._up else self.context.client


def _unit(context: Context, peer: Peer) -> bytes:
    """The client's address, or something that no other connection has."""
    host, port = context.client.peername[:2]
    if peer.route.by_address:
        return str(host).encode()
    return f"{host}:{port} {context.client.timestamp_start} {next(_numbers)}".encode()
