"""Delivers a configuration to a running Envoy and waits until Envoy acts on it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

from counterfault.proxy.engines.envoy.config.compiler import CompiledConfig
from counterfault.proxy.engines.envoy.config.names import (
    CLUSTERS_FILE,
    LISTENERS_FILE,
    Json,
    routes_file,
)
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.runtime.run_directory import RunDirectory, version_of

_POLL = 0.004
# Seconds in which Envoy must accept or reject a version.
_TIMEOUT = 4.0
_STATS = r"(version_text|update_rejected|update_failure)$"
_EPOCH, _LISTENS = "server.hot_restart_epoch", "listener_manager.workers_started"
_STARTED = rf"^({_EPOCH}|{_LISTENS})$"
# Seconds until Envoy's log has the reason for a rejection, which its counter shows first. (For an
# accepted version no wait is needed: Envoy reports it after it has posted it to its threads, and
# these take it before anything that arrives over the network later.)
_LOG_DELAY = 0.01


class ConfigRejected(Exception):
    """Envoy has rejected a configuration and keeps the one before. The text is Envoy's reason."""


class Delivery:
    """Delivers in stages: clusters, then routes that may use them, then listeners that use both."""

    def __init__(
        self, directory: RunDirectory, admin: EnvoyAdmin, reasons: Callable[[], str], drain: float
    ) -> None:
        """Prepare the delivery.

        Args:
            directory: The run directory.
            admin: The admin endpoint.
            reasons: Returns the latest errors in Envoy's log.
            drain: Seconds for requests under way at a listener that was removed.
        """
        self._directory, self._admin, self._reasons = directory, admin, reasons
        self._drain = drain
        self._removed: dict[str, float] = {}
        self._files: dict[str, Json] = {}
        self._up = ""

    def place_for_start(self, compiled: CompiledConfig) -> None:
        """Write the files that the next Envoy to start will read. Raises OSError."""
        self._files = _versioned(compiled)
        self._directory.swap_version(self._files)

    async def require_up(self, epoch: int, incarnation: str) -> None:
        """Raise OSError unless this Envoy, and not its predecessor, answers and listens.

        Args:
            epoch: How many processes came before it by hot restart.
            incarnation: The name of the process; once it was up, it is not asked again.
        """
        if self._up != incarnation:
            stats = await self._admin.stats(_STARTED)
            if stats.get(_EPOCH) != str(epoch) or stats.get(_LISTENS) != "1":
                raise OSError("envoy is starting")
            self._up = incarnation

    async def deliver(self, compiled: CompiledConfig) -> None:
        """Swap the configuration in, and return once Envoy acts on it.

        Raises:
            ConfigRejected: Envoy keeps the configuration before.
            OSError: Envoy does not answer, or a file cannot be written.
        """
        present = self._files or self._present(compiled)
        wanted = _versioned(self._with_removed_clusters(compiled, present))
        for stage in _stages(present, wanted):
            before = await self._admin.stats(_STATS)
            self._directory.swap_version(stage)
            try:
                await self._accepted(stage, before)
            except ConfigRejected:
                # An Envoy that starts now must find valid files.
                self._directory.swap_version(self._files or stage)
                raise
            self._files = stage
        await self._accepted(wanted, {})  # Envoy may have been restarted since

    def _with_removed_clusters(
        self, compiled: CompiledConfig, files: Mapping[str, Json]
    ) -> CompiledConfig:
        """Return the configuration plus clusters that removed listeners use while they drain."""
        now = time.monotonic()
        wanted = {cluster["name"] for cluster in compiled.clusters}
        present = {cluster["name"]: cluster for cluster in _resources(files, CLUSTERS_FILE)}
        for name in present.keys() - wanted:
            self._removed.setdefault(name, now + self._drain)
        self._removed = {
            name: end for name, end in self._removed.items() if end > now and name not in wanted
        }
        kept = [cluster for name, cluster in present.items() if name in self._removed]
        return replace(compiled, clusters=[*compiled.clusters, *kept])

    def _present(self, compiled: CompiledConfig) -> dict[str, Json]:
        """Return the files on which an adopted Envoy acts."""
        found = {name: self._directory.read_live(name) for name in compiled.files()}
        return {name: content for name, content in found.items() if content is not None}

    async def _accepted(self, files: Mapping[str, Json], before: Mapping[str, str]) -> None:
        """Wait until Envoy reports these versions.

        Raises:
            ConfigRejected: A counter of rejections exceeds the one in `before`, or time is up.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                while True:
                    now = await self._admin.stats(_STATS)
                    if _acts_on(now, files):
                        return
                    if before and _rejected(before, now):
                        break
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise ConfigRejected(
                self._reasons() or "envoy has not accepted the configuration"
            ) from None
        await asyncio.sleep(_LOG_DELAY)
        raise ConfigRejected(self._reasons() or "envoy has rejected the configuration")


def _stages(before: Mapping[str, Json], wanted: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Return the versions to deliver one after another, so that no reference ever dangles."""
    stages = [dict(before)]
    if before and before[CLUSTERS_FILE] != wanted[CLUSTERS_FILE]:
        stages.append({**before, CLUSTERS_FILE: wanted[CLUSTERS_FILE]})
    if before and before[LISTENERS_FILE] != wanted[LISTENERS_FILE]:
        stages.append({**before, **wanted, LISTENERS_FILE: before[LISTENERS_FILE]})
    stages.append(dict(wanted))
    return [stage for last, stage in pairwise(stages) if stage != last]


def _resources(files: Mapping[str, Json], name: str) -> list[Json]:
    found: list[Json] = files.get(name, {}).get("resources", [])
    return found


def _versioned(compiled: CompiledConfig) -> dict[str, Json]:
    bare = compiled.files()
    return {
        name: {"version_info": version_of(content), **content} for name, content in bare.items()
    }


def _acts_on(stats: Mapping[str, str], files: Mapping[str, Json]) -> bool:
    """Whether Envoy reports the version of every file that it reads."""
    versions = {
        _file_of(name): value for name, value in stats.items() if name.endswith("version_text")
    }
    listening = (routes_file(one["name"]) for one in files[LISTENERS_FILE]["resources"])
    needed = {CLUSTERS_FILE, LISTENERS_FILE, *(name for name in listening if name in files)}
    return all(versions.get(name) == files[name]["version_info"] for name in needed)


def _file_of(stat: str) -> str:
    if stat.startswith("cluster_manager.cds."):
        return CLUSTERS_FILE
    if stat.startswith("listener_manager.lds."):
        return LISTENERS_FILE
    parts = stat.split(".")
    return routes_file(parts[3]) if len(parts) == 5 else stat


def _rejected(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a counter of rejected or failed updates has risen."""
    return any(
        int(value) > int(before.get(name, "0"))
        for name, value in now.items()
        if name.endswith(("update_rejected", "update_failure"))
    )
