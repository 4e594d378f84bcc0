"""A sidecar is composed before it is started: composing binds nothing and starts nothing."""

import asyncio
from pathlib import Path

from counterfault.proxy.cli.run import Sidecar, build
from counterfault.proxy.config.loader import load
from tests.support.supervisor_world import SLOW, World


def built(directory: Path, *, until_done: bool) -> Sidecar:
    async def compose() -> Sidecar:
        return build(load(directory), directory / "state", until_done=until_done)

    World(directory).write(SLOW)
    return asyncio.run(compose())


def test_composing_a_sidecar_starts_nothing(tmp_path: Path) -> None:
    sidecar = built(tmp_path, until_done=False)
    assert sidecar.supervisor.engine is sidecar.engine
    assert sidecar.engine.pids == []
    assert sidecar.until_done is None
    assert not sidecar.stopping.is_set()
    assert not (tmp_path / "state").exists()


def test_a_sidecar_that_stops_when_all_is_done_waits_for_its_runs(tmp_path: Path) -> None:
    assert built(tmp_path, until_done=True).until_done is not None
