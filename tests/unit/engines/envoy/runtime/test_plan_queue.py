"""Plans reach Envoy one at a time, always the latest; where Envoy is out of reach, once more."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.envoy.runtime.delivery import ConfigRejected
from counterfault.proxy.engines.envoy.runtime.plan_queue import PlanQueue, QueuedPlan

CONFIG = cast(Config, None)  # the queue does not look at it


class Envoy:
    """Does what `outcomes` say, one after another, then accepts everything."""

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)
        self.applied: list[int] = []
        self.rejections: list[str] = []

    async def apply(self, plan: QueuedPlan) -> None:
        self.applied.append(plan.generation)
        if self.outcomes:
            raise self.outcomes.pop(0)


def played(envoy: Envoy, play: Callable[[PlanQueue], object]) -> PlanQueue:
    """Let `play`, which may be a coroutine function, use a queue that delivers."""

    async def run() -> PlanQueue:
        queue = PlanQueue(envoy.apply, envoy.rejections.append)
        task = asyncio.ensure_future(queue.deliver())
        try:
            async with asyncio.timeout(5):
                result = play(queue)
                if asyncio.iscoroutine(result):
                    await result
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return queue

    return asyncio.run(run())


def test_a_plan_is_settled_when_envoy_has_accepted_it():
    async def play(queue: PlanQueue) -> None:
        generation = queue.push(CONFIG, {}, 0)
        assert not queue.settled
        assert not queue.any_settled
        await queue.accepted(generation)

    envoy = Envoy()
    queue = played(envoy, play)
    assert queue.settled
    assert queue.any_settled
    assert envoy.applied == [1]


def test_of_several_plans_only_the_latest_is_applied():
    async def play(queue: PlanQueue) -> None:
        for _ in range(3):
            generation = queue.push(CONFIG, {}, 0)
        await queue.accepted(generation)
        await queue.accepted(1)  # an older one has been overtaken

    envoy = Envoy()
    played(envoy, play)
    assert envoy.applied == [3]


def test_an_envoy_that_cannot_be_reached_is_tried_again():
    async def play(queue: PlanQueue) -> None:
        await queue.accepted(queue.push(CONFIG, {}, 0))

    envoy = Envoy(OSError("envoy is starting"), OSError("envoy is starting"))
    played(envoy, play)
    assert envoy.applied == [1, 1, 1]
    assert envoy.rejections == []


def test_a_rejected_plan_is_settled_and_its_reason_is_told():
    async def play(queue: PlanQueue) -> None:
        with pytest.raises(OSError, match="no such cluster"):
            await queue.accepted(queue.push(CONFIG, {}, 0))
        assert queue.settled
        await queue.accepted(queue.push(CONFIG, {}, 0))

    envoy = Envoy(ConfigRejected("no such cluster"))
    played(envoy, play)
    assert envoy.rejections == ["no such cluster"]
    assert envoy.applied == [1, 2]


def test_the_latest_plan_is_applied_again_when_something_has_changed():
    async def play(queue: PlanQueue) -> None:
        await queue.accepted(queue.push(CONFIG, {}, 0))
        queue.redeliver()
        await queue.changed.wait()

    envoy = Envoy()
    played(envoy, play)
    assert envoy.applied == [1, 1]


def test_a_closed_queue_applies_no_more():
    async def play(queue: PlanQueue) -> None:
        await queue.accepted(queue.push(CONFIG, {}, 0))
        queue.close()
        queue.push(CONFIG, {}, 0)
        await asyncio.sleep(0.05)

    envoy = Envoy()
    played(envoy, play)
    assert envoy.applied == [1]
