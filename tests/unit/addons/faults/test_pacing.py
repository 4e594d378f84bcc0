"""A paced queue lets events through in order, at the pace and the time that its faults say."""

from dataclasses import dataclass, field
from typing import Any

from mitmproxy.connection import Server
from mitmproxy.proxy import events

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.pacing import PacedQueue, Wait
from counterfault.addons.state import WorkerState
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines import fault_budget
from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.engines.plan import Injection, Plan
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.faults.actions import Delay, Pace

INJECTION = Injection("x", Epoch("1.0.running"), 0, "bandwidth", Delay(0), None)
SERVER = Server(address=("a", 1))


@dataclass
class World:
    now: float = 100.0
    counted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        sidecar = Sidecar.model_validate(
            {"service": "s", "listeners": {"inbound": {"listen": "a:1", "upstream": "http://b"}}}
        )
        self.live = WorkerState(Plan(sidecar, (), {}), Budget(fault_budget.create(), 0), {"x": 0})
        self.queue = PacedQueue(lambda: self.now)

    def fault(self) -> ActiveFault:
        assert self.live.budget.take(0, 100, None)
        return ActiveFault(
            self.live, INJECTION, lambda i, result: self.counted.append(result), set()
        )

    def put(self, data: bytes, fault: ActiveFault | None = None, seconds: float = 0.0) -> None:
        self.queue.put(events.DataReceived(SERVER, data), fault, seconds)

    def run(self) -> list[tuple[float, Any]]:
        """All that comes out, with the time of it."""
        found = []
        while (following := self.queue.next()) is not None:
            if isinstance(following, Wait):
                self.now += following.seconds
            else:
                found.append((round(self.now - 100, 6), following))
        return found


def test_bytes_take_the_time_that_their_pace_has_for_them() -> None:
    world = World()
    fault = world.fault()
    world.queue.limit_rate(Pace(10, 0.5), fault)
    world.put(b"0123456789abcdefghijXYZ")
    end = events.ConnectionClosed(SERVER)
    world.queue.put(end)
    found = world.run()
    pieces = [(at, e.data) for at, e in found[:-1]]
    assert pieces == [(0.5, b"0123456789"), (1.0, b"abcdefghij"), (1.15, b"XYZ")]
    assert found[-1] == (1.15, end)
    assert (world.queue.size, world.queue.empty) == (0, True)
    assert world.counted == ["performed"]


def test_the_slowest_of_two_paces_holds_until_its_fault_ends() -> None:
    world = World()
    slow, slower = world.fault(), world.fault()
    world.queue.limit_rate(Pace(10, 0.1), slow)
    world.queue.limit_rate(Pace(10, 1.0), slower)
    world.put(b"x" * 20)
    assert isinstance(world.queue.next(), Wait)
    world.now += 1
    first: Any = world.queue.next()
    assert first.data == b"x" * 10
    slower.release()
    assert [at for at, _ in world.run()] == [1.1]


def test_a_fault_that_ends_lets_everything_through_at_once() -> None:
    world = World()
    fault = world.fault()
    world.queue.limit_rate(Pace(1, 60.0), fault)
    world.put(b"abc")
    world.put(b"def")
    assert isinstance(world.queue.next(), Wait)
    fault.release()
    assert [(at, e.data) for at, e in world.run()] == [(0, b"abc"), (0, b"def")]
    assert world.live.budget.active() == 0


def test_what_a_slow_source_leaves_unused_is_no_burst_later() -> None:
    world = World()
    world.queue.limit_rate(Pace(10, 1.0), world.fault())
    world.put(b"x" * 10)
    world.run()
    world.now += 60
    world.put(b"x" * 30)
    assert [at for at, _ in world.run()] == [61.95, 62.95, 63.95]


def test_messages_overtake_nobody_and_wait_for_nobody() -> None:
    world = World()
    world.put(b"a", world.fault(), 1.0)
    world.put(b"b", world.fault(), 0.2)
    world.put(b"c")
    assert [(at, e.data) for at, e in world.run()] == [(1.0, b"a"), (1.0, b"b"), (1.0, b"c")]
    assert world.live.budget.active() == 0


def test_whoever_leaves_ends_what_is_held_for_him() -> None:
    world = World()
    world.put(b"a", world.fault(), 60.0)
    world.put(b"b", world.fault(), 60.0)
    world.queue.clear()
    assert world.queue.next() is None
    assert world.live.budget.active() == 0


def test_a_fault_without_effect_has_failed_and_gives_back_what_it_took() -> None:
    world = World()
    fault = world.fault()
    fault.release()
    fault.release()
    assert world.counted == ["failed"]
    assert (world.live.budget.active(), world.live.budget.performed(0)) == (0, 0)
