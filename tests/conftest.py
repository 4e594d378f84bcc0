"""Fixtures: real programs on free ports, stopped by their own pid."""

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support import programs, suite_plan
from tests.support.programs import MakeNginx, MakeSidecar, Nginx, Sidecar

_NUMBERS = count(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Give each test its markers, let pytest select by them, and put the rest in order."""
    for item in items:
        for marker in suite_plan.markers(item):
            item.add_marker(marker)
    yield
    items.sort(key=suite_plan.sort_key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> suite_plan.Scheduling | None:
    """Make xdist bring together the tests that share what is expensive: `--dist loadscope`."""
    return suite_plan.Scheduling(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture
def make_sidecar(tmp_path: Path) -> Iterator[MakeSidecar]:
    """Makes sidecars: `make_sidecar(upstream, limits={…}, inbound={…})`; stops them afterwards."""
    made: list[Sidecar] = []

    def make(upstream: str, **settings: Any) -> Sidecar:
        directory = tmp_path / f"sidecar-{len(made)}"
        made.append(Sidecar(directory, upstream, settings))
        return made[-1]

    yield make
    for sidecar in made:
        if sidecar.process is not None:
            with suppress(ProcessLookupError):
                sidecar.stop()


@pytest.fixture
def make_nginx(tmp_path: Path) -> Iterator[MakeNginx]:
    """Makes nginx servers from the text of a server block: `make_nginx('location / {…}')`."""
    made: list[Nginx] = []

    def make(server: str, http: str = "") -> Nginx:
        made.append(Nginx(tmp_path / f"nginx-{len(made)}", server, http))
        return made[-1]

    yield make
    for nginx in made:
        nginx.stop()


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return programs.until


@pytest.fixture(name="user")
def _user() -> Callable[..., str]:
    return programs.user


@pytest.fixture(name="name")
def _name() -> str:
    """An experiment's, which no other test has."""
    return f"x{next(_NUMBERS)}"


@pytest.fixture(name="free_port")
def _free_port() -> Callable[[], int]:
    return programs.free_port


@pytest.fixture(name="program")
def _program() -> Callable[[str], str]:
    return programs.program
