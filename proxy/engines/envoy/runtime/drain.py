"""The end of Envoy for its clients: no new ones, idle ones leave, the others after their answer."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.runtime.run_directory import RunDirectory
from counterfault.proxy.engines.graceful_close import closing
from counterfault.proxy.values.addresses import HostPort

_POLL = 0.05
_CLIENTS = r"^http\..*\.downstream_cx_active$"


async def drain(
    admin: EnvoyAdmin, directory: RunDirectory, ports: Iterable[HostPort], grace: float
) -> None:
    """Let clients go; waits for the last one, at most `grace` seconds, also for Envoy to answer."""
    with suppress(OSError):
        async with asyncio.timeout(grace):
            await admin.post("/healthcheck/fail")  # from here on answers say that they are the last
            directory.let_go(True)
            async with closing(ports):
                await admin.post("/drain_listeners")
            while await _clients(admin):  # noqa: ASYNC110 (Envoy tells nobody)
                await asyncio.sleep(_POLL)


async def _clients(admin: EnvoyAdmin) -> bool:
    active = await admin.stats(_CLIENTS)
    return any(int(n) for name, n in active.items() if not name.startswith("http.admin."))
