"""Getting a configuration into a running Envoy, and its word that it acts on it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

from counterfault.proxy.engines.envoy.config.compiler import Compiled
from counterfault.proxy.engines.envoy.config.names import CLUSTERS, LISTENERS, Json, routes_file
from counterfault.proxy.engines.envoy.runtime.admin_client import EnvoyAdmin
from counterfault.proxy.engines.envoy.runtime.run_directory import RunDirectory, version_of

_POLL = 0.004
# How long Envoy may take to say something about a version before we look for its reasons.
_PATIENCE = 4.0
_STATS = r"(version_text|update_rejected|update_failure)$"
_EPOCH, _LISTENS = "server.hot_restart_epoch", "listener_manager.workers_started"
_STARTED = rf"^({_EPOCH}|{_LISTENS})$"
# Envoy names a version once it has handed it to its threads, and these take what they were handed
# before what has come over the wire since. Its reasons for refusing one come another way, later.
_TURN = 0.01


class Rejected(Exception):
    """Envoy does not want a configuration; the one before stays."""


class Delivery:
    """Clusters first, then routes that may use them, then listeners that need both."""

    def __init__(
        self, directory: RunDirectory, admin: EnvoyAdmin, reasons: Callable[[], str], drain: float
    ) -> None:
        """`drain`: seconds that clients of a listener that is gone have for what is under way."""
        self._directory, self._admin, self._reasons = directory, admin, reasons
        self._drain = drain
        self._leaving: dict[str, float] = {}
        self._files: dict[str, Json] = {}
        self._met = ""

    def place(self, compiled: Compiled) -> None:
        """Put everything where an Envoy that starts finds it."""
        self._files = _versioned(compiled)
        self._directory.swap(self._files)

    async def meet(self, epoch: int, incarnation: str) -> None:
        """See that this Envoy answers, not the one before it, and listens. Raises OSError."""
        if self._met != incarnation:
            told = await self._admin.stats(_STARTED)
            if told.get(_EPOCH) != str(epoch) or told.get(_LISTENS) != "1":
                raise OSError("envoy is starting")
            self._met = incarnation

    async def deliver(self, compiled: Compiled) -> None:
        """Swap it in; returns once Envoy has it. Raises Rejected, OSError."""
        present = self._files or self._present(compiled)
        wanted = _versioned(self._keeping(compiled, present))
        for stage in _stages(present, wanted):
            before = await self._admin.stats(_STATS)
            self._directory.swap(stage)
            try:
                await self._accepted(stage, before)
            except Rejected:
                self._directory.swap(self._files or stage)  # for an Envoy that starts
                raise
            self._files = stage
        await self._accepted(wanted, {})  # it may have started since

    def _keeping(self, compiled: Compiled, files: Mapping[str, Json]) -> Compiled:
        """With the clusters that clients of listeners that are gone may still ask for."""
        now = time.monotonic()
        wanted = {cluster["name"] for cluster in compiled.clusters}
        present = {cluster["name"]: cluster for cluster in _resources(files, CLUSTERS)}
        for name in present.keys() - wanted:
            self._leaving.setdefault(name, now + self._drain)
        self._leaving = {
            name: end for name, end in self._leaving.items() if end > now and name not in wanted
        }
        kept = [cluster for name, cluster in present.items() if name in self._leaving]
        return replace(compiled, clusters=[*compiled.clusters, *kept])

    def _present(self, compiled: Compiled) -> dict[str, Json]:
        """What an Envoy that we have adopted acts on."""
        found = {name: self._directory.present(name) for name in compiled.files()}
        return {name: content for name, content in found.items() if content is not None}

    async def _accepted(self, files: Mapping[str, Json], before: Mapping[str, str]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    now = await self._admin.stats(_STATS)
                    if _says(now, files):
                        return
                    if before and _refused(before, now):
                        break
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise Rejected(self._reasons() or "envoy has not taken the configuration") from None
        await asyncio.sleep(_TURN)
        raise Rejected(self._reasons() or "envoy has rejected the configuration")


def _stages(before: Mapping[str, Json], wanted: Mapping[str, Json]) -> list[dict[str, Json]]:
    """The versions to go through: one, unless clusters or listeners have changed."""
    stages = [dict(before)]
    if before and before[CLUSTERS] != wanted[CLUSTERS]:
        stages.append({**before, CLUSTERS: wanted[CLUSTERS]})
    if before and before[LISTENERS] != wanted[LISTENERS]:
        stages.append({**before, **wanted, LISTENERS: before[LISTENERS]})
    stages.append(dict(wanted))
    return [stage for last, stage in pairwise(stages) if stage != last]


def _resources(files: Mapping[str, Json], name: str) -> list[Json]:
    found: list[Json] = files.get(name, {}).get("resources", [])
    return found


def _versioned(compiled: Compiled) -> dict[str, Json]:
    bare = compiled.files()
    return {
        name: {"version_info": version_of(content), **content} for name, content in bare.items()
    }


def _says(stats: Mapping[str, str], files: Mapping[str, Json]) -> bool:
    """Whether Envoy names the version of every file that it reads."""
    told = {_file_of(name): value for name, value in stats.items() if name.endswith("version_text")}
    listening = (routes_file(one["name"]) for one in files[LISTENERS]["resources"])
    needed = {CLUSTERS, LISTENERS, *(name for name in listening if name in files)}
    return all(told.get(name) == files[name]["version_info"] for name in needed)


def _file_of(stat: str) -> str:
    if stat.startswith("cluster_manager.cds."):
        return CLUSTERS
    if stat.startswith("listener_manager.lds."):
        return LISTENERS
    parts = stat.split(".")
    return routes_file(parts[3]) if len(parts) == 5 else stat


def _refused(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    return any(
        int(value) > int(before.get(name, "0"))
        for name, value in now.items()
        if name.endswith(("update_rejected", "update_failure"))
    )
