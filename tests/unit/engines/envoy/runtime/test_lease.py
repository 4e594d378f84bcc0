"""Envoy gets the supervisor's lease, but none while it may act on a plan that is over."""

import time
from pathlib import Path

import pytest

from counterfault.proxy.engines.envoy.config.names import LEASE_FILE
from counterfault.proxy.engines.envoy.runtime.lease import Lease
from counterfault.proxy.engines.envoy.runtime.run_directory import RunDirectory


class World:
    def __init__(self, path: Path) -> None:
        directory = RunDirectory(path)
        self.lease = Lease(directory)
        self._file = directory.path / LEASE_FILE

    @property
    def written(self) -> float:
        """What Envoy reads, in seconds."""
        return int(self._file.read_text()) / 1000


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "envoy")


def test_a_lease_is_written_in_milliseconds(world: World):
    world.lease.extend(12.3456)
    assert world.written == 12.345
    assert world.lease.until == 12.3456


def test_after_the_end_of_a_lease_there_is_none_until_the_next_plan_is_acted_on(world: World):
    world.lease.extend(time.monotonic() - 1)
    before = world.written
    world.lease.withhold_if_over()
    later = time.monotonic() + 60
    world.lease.extend(later)
    assert world.written == before
    world.lease.grant()
    assert world.written == pytest.approx(later, abs=0.001)


def test_a_plan_within_the_lease_leaves_it_as_it_is(world: World):
    first = time.monotonic() + 30
    world.lease.extend(first)
    world.lease.withhold_if_over()
    world.lease.extend(first + 30)
    assert world.written == pytest.approx(first + 30, abs=0.001)


def test_a_revoked_lease_ends_at_once_and_is_not_extended(world: World):
    world.lease.extend(time.monotonic() + 60)
    world.lease.revoke()
    world.lease.extend(time.monotonic() + 60)
    assert world.written == 0
