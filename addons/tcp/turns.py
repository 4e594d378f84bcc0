"""Counts the turns of a raw connection.

A turn is what the client sends until the upstream answers; it is counted as one exchange.
"""

from collections.abc import Callable

from counterfault.addons.pipeline.exchange import Exchange, Peer
from counterfault.addons.state import WorkerState
from counterfault.proxy.values.request import Request

NO_REQUEST = Request(b"", b"", b"", ())
"""Stands for the request of a raw connection, which has neither method nor path."""
# The status of a turn that was answered, as for an HTTP exchange.
_ANSWERED = 200


def new_exchange(peer: Peer, state: WorkerState) -> Exchange:
    """Return an exchange that begins now, for a raw connection as a whole or for one turn."""
    return Exchange(peer, peer.route, NO_REQUEST, state.clock(), peer.route.upstreams)


class TurnCounter:
    """Counts the turns of one connection, one after another."""

    def __init__(
        self, state: WorkerState, whole: Exchange, ended: Callable[[Exchange, int | None], None]
    ) -> None:
        """Begin without a turn.

        Args:
            state: The state of the worker.
            whole: The exchange of the connection as a whole, whose enrolment its turns share.
            ended: Called with each turn and its status, which is None without an answer.
        """
        self._state, self._whole, self._ended = state, whole, ended
        self.current: Exchange | None = None
        """The turn that has no answer yet."""

    def begin(self) -> None:
        """Begin a turn, unless the client is still waiting for the answer to one."""
        if self.current is not None:
            return
        whole = self._whole
        turn = self.current = new_exchange(whole.peer, self._state)
        turn.unit, turn.enrolment, turn.route = whole.unit, whole.enrolment, whole.route
        if turn.enrolment is not None:
            state, listener, enrolment = self._state, turn.route.name, turn.enrolment
            turn.measured = state.plan.measured(listener, NO_REQUEST, enrolment)
            turn.open_key = state.begin(listener, enrolment, turn.measured, turn.started)
        whole.peer.exchanges.add(turn)

    def end(self, *, answered: bool) -> None:
        """End the current turn, if there is one: with an answer, or as the connection ends."""
        if self.current is not None:
            self._ended(self.current, _ANSWERED if answered else None)
            self.current = None
