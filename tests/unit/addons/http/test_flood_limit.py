"""A client may do for ever what a client does, and not much more of what costs it nothing."""

from collections.abc import Callable

import pytest
from h2.events import DataReceived, Event, PingReceived, RequestReceived, StreamEnded, StreamReset

from counterfault.addons.http.flood_limit import FloodLimit


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _reset(*, remote: bool = True) -> StreamReset:
    return StreamReset(stream_id=1, remote_reset=remote)


def _data(data: bytes, *, ends: bool = False) -> DataReceived:
    ended = StreamEnded(stream_id=1) if ends else None
    return DataReceived(stream_id=1, data=data, flow_controlled_length=0, stream_ended=ended)


def _most(limit: FloodLimit, event: Callable[[], Event], tried: int = 20_000) -> int:
    return next((i for i in range(tried) if not limit.allows(event())), tried)


def test_requests_that_are_taken_back_are_bounded_at_once_and_for_ever() -> None:
    clock = _Clock()
    limit = FloodLimit(clock)
    assert _most(limit, _reset) == 500
    clock.now += 3
    assert _most(limit, _reset) == pytest.approx(300, abs=2)
    clock.now += 3600
    assert _most(limit, _reset) == pytest.approx(500, abs=2)


@pytest.mark.parametrize("event", [lambda: PingReceived(ping_data=b"counterf"), lambda: _data(b"")])
def test_what_is_cheaper_may_be_more(event: Callable[[], Event]) -> None:
    assert _most(FloodLimit(_Clock()), event) == pytest.approx(5000, abs=2)


@pytest.mark.parametrize(
    "event",
    [
        lambda: RequestReceived(stream_id=1, headers=[]),
        lambda: _data(b"x"),
        lambda: _data(b"", ends=True),
        lambda: _reset(remote=False),
    ],
)
def test_what_requests_consist_of_is_not_bounded(event: Callable[[], Event]) -> None:
    assert _most(FloodLimit(_Clock()), event) == 20_000
