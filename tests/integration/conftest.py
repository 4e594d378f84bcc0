"""Tests that ask for `engine` run on each: it must make no difference to a user.

What several modules may share is started once per engine and xdist worker, when it is first asked
for; tests/support/suite_plan.py brings these modules together.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cache

import pytest

from tests.support.conformance import engine
from tests.support.passthrough_sidecar import World, passthrough_world
from tests.support.programs import Sidecar
from tests.support.shared_sidecar import shared_sidecar

type Sidecars = Callable[[str], Sidecar]
type Worlds = Callable[[str], World]

__all__ = ["engine"]


@pytest.fixture(scope="session")
def plain_sidecars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecars]:
    """The sidecar of an engine before an nginx that says hello, for `exclusive_use` in turns."""
    yield from _made_once(
        lambda engine: shared_sidecar(tmp_path_factory.mktemp("plain"), engine=engine)
    )


@pytest.fixture(scope="session")
def passthrough_worlds(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Worlds]:
    """The sidecar of an engine before several upstreams, with an experiment at each of them."""
    yield from _made_once(
        lambda engine: passthrough_world(tmp_path_factory.mktemp("passthrough"), engine)
    )


def _made_once[T](
    make: Callable[[str], AbstractContextManager[T]],
) -> Iterator[Callable[[str], T]]:
    """Yield a function that opens what is made for an engine once; it is closed at the end."""
    with ExitStack() as stack:
        yield cache(lambda engine: stack.enter_context(make(engine)))
