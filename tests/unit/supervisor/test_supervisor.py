"""What a reload starts, it has started when it answers."""

import asyncio
from pathlib import Path

import pytest

from counterfault.proxy.experiments.lifecycle import State
from tests.support.supervisor_world import SLOW, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write(SLOW)
    return world


def test_a_raised_run_starts_while_the_plan_before_is_still_on_its_way(world: World) -> None:
    supervisor = world.start()
    world.engine.ready = 0
    world.write(SLOW | {"run": 2})
    assert asyncio.run(supervisor.reload())
    run = supervisor.registry.runs["slow"]
    assert (run.run, run.state) == (2, State.BASELINE)


def test_no_run_starts_while_nobody_is_served(world: World) -> None:
    world.engine.serves = False
    supervisor = world.start()
    states = [supervisor.registry.runs["slow"].state]
    world.engine.serves = True
    supervisor.tick()
    states.append(supervisor.registry.runs["slow"].state)
    assert states == [State.PENDING, State.BASELINE]
