"""An admin port over real sockets, of a supervisor whose clock a test moves."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import web
from supervised import SLOW, World

from proxy.admin.server import Admin, serve


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
async def admin(world: World) -> AsyncIterator[Admin]:
    admin = await serve(world.supervisor)
    yield admin
    await admin.stop()


@pytest.fixture
async def client(admin: Admin) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://127.0.0.1:{admin.address[1]}"
    async with web.AsyncClient(base_url=url, timeout=5) as client:
        yield client
