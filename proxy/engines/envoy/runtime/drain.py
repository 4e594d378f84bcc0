"""Drains Envoy: it accepts no more clients, closes idle ones, and others after their response."""

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
    """Drain Envoy and wait until its last client has left, but at most `grace` seconds.

    If the admin endpoint does not answer, the function returns early; it raises nothing.

    Args:
        admin: The admin endpoint.
        directory: The run directory, which tells Envoy to close idle connections.
        ports: The addresses on which Envoy listens.
        grace: Seconds for requests under way.
    """
    with suppress(OSError):
        async with asyncio.timeout(grace):
            await admin.post("/healthcheck/fail")  # from now on responses say `connection: close`
            directory.set_draining(True)
            async with closing(ports):
                await admin.post("/drain_listeners")
            while await _has_clients(admin):  # noqa: ASYNC110 (Envoy sends no event)
                await asyncio.sleep(_POLL)


async def _has_clients(admin: EnvoyAdmin) -> bool:
    active = await admin.stats(_CLIENTS)
    return any(int(n) for name, n in active.items() if not name.startswith("http.admin."))
