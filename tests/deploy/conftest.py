"""What the tests of the dashboards and rules look at."""

from collections.abc import Iterator

import pytest

from tests.support.watched_run import Watched, watched_run


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_run(tmp_path_factory.mktemp("watched")) as run:
        yield run
