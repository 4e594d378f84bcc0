"""A child process is started, and started again whenever it ends."""

import asyncio
from collections.abc import Callable

import pytest

from counterfault.proxy.engines import keeper
from counterfault.proxy.engines.keeper import ChangeSignal, keep_running


class Child:
    """Ends at once; `stop_after` starts no more are wanted."""

    def __init__(self, stop_after: int, failures: int = 0) -> None:
        self.starts = 0
        self._stop_after, self._failures = stop_after, failures

    async def start(self) -> None:
        self.starts += 1
        if self.starts <= self._failures:
            raise OSError("no process left")

    async def ended(self) -> str:
        return "it was old"

    def stopping(self) -> bool:
        return self.starts >= self._stop_after

    async def run(self) -> None:
        await keep_running("child", self.start, self.ended, self.stopping)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "RESTART_PAUSE", 0.001)


def test_a_child_that_ends_is_started_again_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    child = Child(stop_after=3)
    asyncio.run(child.run())
    assert child.starts == 3
    assert caplog.messages == ["child has ended; starting another. it was old"] * 2


def test_a_child_that_cannot_start_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    child = Child(stop_after=3, failures=2)
    asyncio.run(child.run())
    assert child.starts == 3
    assert caplog.messages == ["child cannot start: no process left"] * 2


def test_a_crash_loop_is_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(keeper, "RESTART_PAUSE", 1.0)

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    asyncio.run(Child(stop_after=4).run())
    assert pauses == [1.0, 1.0, 1.0]


def test_a_change_wakes_all_who_wait_and_only_them() -> None:
    async def talk() -> list[str]:
        signal, woken = ChangeSignal(), list[str]()

        async def wait(name: str, done: Callable[[str], None] = woken.append) -> None:
            await signal.wait()
            done(name)

        early = [asyncio.ensure_future(wait(name)) for name in ("one", "two")]
        await asyncio.sleep(0)
        signal.notify()
        late = asyncio.ensure_future(wait("late"))
        await asyncio.gather(*early)
        late.cancel()
        return woken

    assert asyncio.run(talk()) == ["one", "two"]
