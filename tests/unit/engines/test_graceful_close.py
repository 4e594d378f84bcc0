"""Ports that close gracefully: against real sockets of this kernel."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from counterfault.proxy.engines.graceful_close import PortGate, closing, refuse_new_clients
from counterfault.proxy.engines.ports import bound_address, listening_socket
from counterfault.proxy.values.addresses import HostPort

SOON = 0.2
"""Seconds: a connection that is let in at all is let in at once."""

type Join = Callable[[HostPort], socket.socket]


@pytest.fixture
def join() -> Iterator[Join]:
    """Makes sockets that share a port, as the threads of another process would."""
    with ExitStack() as stack:
        yield lambda address: stack.enter_context(listening_socket(address))


def comes_in(address: HostPort) -> bool:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(SOON)
        try:
            client.connect(address)
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_nobody_comes_in_and_who_is_in_is_served(join: Join, host: str) -> None:
    theirs = [join((host, 0))]
    port = bound_address(theirs[0])[1]
    theirs.append(join((host, port)))
    there = ("::1" if ":" in host else "127.0.0.1", port)
    with ExitStack() as stack:
        waiting = [
            stack.enter_context(socket.create_connection(there, timeout=5)) for _ in range(20)
        ]
        gate = PortGate((host, port))
        stack.callback(gate.close)
        assert not gate.drained
        assert not gate.others_closed
        assert not any(comes_in(there) for _ in range(5))
        accepted = 0
        for sock in theirs:
            sock.setblocking(False)
            while not gate.drained:
                try:
                    client = stack.enter_context(sock.accept()[0])
                except BlockingIOError:
                    break
                client.sendall(b"x")
                accepted += 1
        assert accepted == len(waiting)
        assert gate.drained
        for sock in theirs:
            sock.close()
            assert not comes_in(there)  # also while others are still open
        assert gate.others_closed
        assert [client.recv(1) for client in waiting] == [b"x"] * len(waiting)
    with pytest.raises(ConnectionRefusedError):
        comes_in(there)


def test_when_it_opens_again_all_are_let_in(join: Join) -> None:
    theirs = [join(("127.0.0.1", 0))]
    theirs.append(join(bound_address(theirs[0])))
    there = bound_address(theirs[0])
    PortGate(there).close()
    assert all(comes_in(there) for _ in range(20))


def test_where_nobody_listens_it_is_no_port(join: Join) -> None:
    there = bound_address(join(("127.0.0.1", 0)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gate = PortGate(bound_address(taken))
    assert gate.drained
    assert gate.others_closed
    gate.close()
    assert comes_in(there)


def test_others_that_are_stalled_are_not_waited_for_long(join: Join) -> None:
    theirs = join(("127.0.0.1", 0))
    there = bound_address(theirs)

    async def told() -> None:
        async with closing([there]):
            assert not comes_in(there)

    with socket.create_connection(there):
        asyncio.run(asyncio.wait_for(told(), 5))
    assert comes_in(there)


def test_a_socket_of_our_own_lets_nobody_in(join: Join) -> None:
    sock = join(("127.0.0.1", 0))
    there = bound_address(sock)
    with socket.create_connection(there, timeout=5) as client:
        refuse_new_clients(sock)
        assert not comes_in(there)
        with sock.accept()[0] as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
