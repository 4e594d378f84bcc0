"""One direction of a raw connection lets bytes through until a fault cuts it."""

from typing import Any, cast

import pytest
from mitmproxy.connection import Client
from mitmproxy.proxy import commands, events

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.tcp.direction import Direction

CLIENT = Client(peername=("::1", 1), sockname=("::1", 2))


class Fault:
    """An active fault, as far as a direction looks at it."""

    over = False


@pytest.fixture
def direction() -> Direction:
    return Direction(lambda: 0.0)


def put(direction: Direction, *parts: bytes) -> None:
    for part in parts:
        direction.queue.put(events.DataReceived(CLIENT, part))


def taken(direction: Direction) -> tuple[bytes, bool]:
    """What goes on next, and whether it is the last before the cut."""
    event, cut = direction.next()
    return cast("Any", event).data, cut is not None


def test_without_a_cut_all_goes_on(direction: Direction) -> None:
    put(direction, b"one", b"two")
    assert [taken(direction), taken(direction)] == [(b"one", False), (b"two", False)]
    assert direction.next() == (None, None)


def test_a_cut_lets_the_first_bytes_through(direction: Direction) -> None:
    direction.cut_after(5, cast("ActiveFault", Fault()))
    put(direction, b"one", b"two")
    assert [taken(direction), taken(direction)] == [(b"one", False), (b"tw", True)]


def test_a_cut_whose_fault_is_over_cuts_nothing(direction: Direction) -> None:
    fault = Fault()
    direction.cut_after(2, cast("ActiveFault", fault))
    fault.over = True
    put(direction, b"one", b"two")
    assert [taken(direction), taken(direction)] == [(b"one", False), (b"two", False)]


def test_an_end_is_no_data_to_cut(direction: Direction) -> None:
    direction.cut_after(0, cast("ActiveFault", Fault()))
    direction.queue.put(events.ConnectionClosed(CLIENT))
    event, cut = direction.next()
    assert isinstance(event, events.ConnectionClosed)
    assert cut is None


def test_nothing_goes_on_during_a_wait(direction: Direction) -> None:
    put(direction, b"one")
    direction.waiting = commands.RequestWakeup(1.0)
    assert direction.next() == (None, None)
    direction.waiting = None
    assert taken(direction) == (b"one", False)
