"""An admin port over real sockets, of a supervisor whose clock a test moves."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from counterfault.proxy.admin.server import AdminServer, serve
from tests.support import http_clients
from tests.support.supervisor_world import SLOW, World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "config")
    world.write(SLOW)
    world.start()
    yield world
    world.close()


@pytest.fixture
async def admin(world: World) -> AsyncIterator[AdminServer]:
    admin = await serve(world.supervisor)
    yield admin
    await admin.stop()


@pytest.fixture
async def client(admin: AdminServer) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://127.0.0.1:{admin.address[1]}"
    async with http_clients.AsyncClient(base_url=url, timeout=5) as client:
        yield client
