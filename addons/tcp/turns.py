"""The turns of a raw connection: what its client says until the upstream answers.

A turn is an exchange to those who count.
"""

from collections.abc import Callable

from counterfault.addons.pipeline.exchange import Exchange, Peer
from counterfault.addons.state import WorkerState
from counterfault.proxy.values.request import Request

NOTHING = Request(b"", b"", b"", ())
"""What is known of a request of bytes."""
_ANSWERED = 200


def exchange(peer: Peer, live: WorkerState) -> Exchange:
    """Of a raw connection, as a whole or for a turn, from now on."""
    return Exchange(peer, peer.route, NOTHING, live.clock(), peer.route.upstreams)


class Turns:
    """One at a time; `ended` is told of each, with a status if the upstream has answered."""

    def __init__(
        self, live: WorkerState, whole: Exchange, ended: Callable[[Exchange, int | None], None]
    ) -> None:
        self._live, self._whole, self._ended = live, whole, ended
        self.present: Exchange | None = None
        """The client has spoken and has no answer yet."""

    def begin(self) -> None:
        """The client speaks; no news while it has no answer."""
        if self.present is not None:
            return
        whole = self._whole
        turn = self.present = exchange(whole.peer, self._live)
        turn.unit, turn.enrolment, turn.route = whole.unit, whole.enrolment, whole.route
        if turn.enrolment is not None:
            turn.measured = self._live.plan.measured(turn.route.name, NOTHING, turn.enrolment)
        whole.peer.exchanges.add(turn)

    def end(self, *, answered: bool) -> None:
        """The upstream has answered, or has left or been left instead."""
        if self.present is not None:
            self._ended(self.present, _ANSWERED if answered else None)
            self.present = None
