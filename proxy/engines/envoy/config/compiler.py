"""Plan to Envoy configuration: pure, and the same for the same input.

bootstrap   once for a process; another one needs another process (a hot restart)
clusters, listeners   what sidecar.yaml says; swapped when it changes
routes      one for each listener, with the assignment inside; swapped at every turn of a run
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Limits, Sidecar
from counterfault.proxy.engines.envoy.config import lua_program, native_faults
from counterfault.proxy.engines.envoy.config.bystander_filter import maybe_enrolled
from counterfault.proxy.engines.envoy.config.clusters import clusters
from counterfault.proxy.engines.envoy.config.histogram_buckets import BUCKETS
from counterfault.proxy.engines.envoy.config.listeners import listeners
from counterfault.proxy.engines.envoy.config.names import (
    ADMIN,
    CLUSTERS,
    LEAVE,
    LISTENERS,
    SPACE,
    Json,
    routes_file,
    seconds,
    typed,
    watched,
)
from counterfault.proxy.engines.envoy.config.routes import Program, routes
from counterfault.proxy.engines.envoy.config.upstream_addresses import sticky
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.values.addresses import HostPort

# How often Envoy merges its histograms.
FLUSH = 0.5
# How soon it sees that idle clients are to leave, and for how long these have been silent.
_SEE, _QUIET = 0.25, 0.5
_LEAVE = "envoy.resource_monitors.injected_resource"


@dataclass(frozen=True, slots=True)
class Found:
    """What a configuration needs from outside itself.

    `workers`: where the detours' workers listen; `tls` and `ca`: the files of listeners.
    """

    workers: Mapping[str, HostPort]
    tls: Mapping[str, tuple[str, str]]
    ca: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The files of one version, without the version itself."""

    clusters: list[Json]
    listeners: list[Json]
    routes: Mapping[str, Json]

    def files(self) -> dict[str, Json]:
        """As Envoy reads them."""
        found = {CLUSTERS: self._cluster_messages(), LISTENERS: self.listeners}
        found |= {routes_file(name): [made] for name, made in self.routes.items()}
        return {file: {"resources": resources} for file, resources in found.items()}

    def _cluster_messages(self) -> list[Json]:
        return [typed("config.cluster.v3.Cluster", **cluster) for cluster in self.clusters]


def bootstrap(sidecar: Sidecar) -> Json:
    """What Envoy starts with."""
    return {
        "node": {"id": sidecar.service, "cluster": SPACE},
        "admin": {"address": {"pipe": {"path": ADMIN, "mode": 0o600}}},
        "dynamic_resources": {"cds_config": watched(CLUSTERS), "lds_config": watched(LISTENERS)},
        "stats_flush_interval": seconds(FLUSH),
        "stats_config": {
            "histogram_bucket_settings": [
                {
                    "match": {"prefix": f"{SPACE}."},
                    "buckets": list(BUCKETS),
                }
            ]
        },
        "overload_manager": _overload(sidecar.limits),
    }


def _overload(limits: Limits) -> Json:
    """How many clients there may be, and the end of those that ask for nothing.

    While it drains, Envoy keeps idle clients, and cuts them off when it ends. But it has a remedy
    against overload, and a file says when: time-outs get short. So that of an idle connection comes
    at once, and whoever speaks HTTP/2 is told to go away first.
    """
    most = typed(
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=limits.connections,
    )
    leave = typed(
        "extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
        filename=f"./{LEAVE}",
    )
    scaled = {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": seconds(_QUIET)}
    shorter = typed(
        "config.overload.v3.ScaleTimersOverloadActionConfig", timer_scale_factors=[scaled]
    )
    return {
        "refresh_interval": seconds(_SEE),
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": most,
            },
            {"name": _LEAVE, "typed_config": leave},
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": [{"name": _LEAVE, "threshold": {"value": 1.0}}],
                "typed_config": shorter,
            }
        ],
    }


def compiled(config: Config, runs: Mapping[str, RunStatus], found: Found) -> Compiled:
    """A configuration and the runs under way as Envoy has them."""
    sidecar = config.sidecar
    # Without workers that serve its detours, nobody is enrolled in an experiment.
    there = native_faults.served(sidecar) | found.workers.keys()
    reachable = tuple(e for e in config.experiments if native_faults.detours(e).keys() <= there)
    limits = sidecar.limits.model_copy(update={"active_faults": active_faults(config)[0]})
    bounded = sidecar.model_copy(update={"limits": limits})
    made: dict[str, Json] = {}
    for name, listener in sidecar.listeners.items():
        if native_faults.by_workers(listener):
            continue
        live = [e for e in reachable if e.name in runs and runs[e.name].state in LIVE]
        detour = name in found.workers and any(name in native_faults.detours(e) for e in live)
        drop = any(_drops(e, name) for e in live if runs[e.name].state is State.RUNNING)
        source = lua_program.source(bounded, name, {"arms": lua_program.arms(name, live, runs)})
        program = Program(source, _asked(sidecar, listener, live), detour, drop)
        made[name] = routes(name, listener, program)
    holds = limits.active_faults and max(1, limits.active_faults - (sidecar.workers - 1))
    return Compiled(
        clusters(sidecar, holds, found.workers, found.ca), listeners(sidecar, found.tls), made
    )


def _asked(sidecar: Sidecar, listener: Listener, live: Iterable[Experiment]) -> Json | None:
    if sticky(listener):
        return None  # everybody's unit says where to go
    return maybe_enrolled(sidecar.unit, [e.arcs for e in live])


def _drops(e: Experiment, listener: str) -> bool:
    if listener in native_faults.detours(e):
        return False
    made = (native_faults.program(rule) for rule in e.faults if rule.at == listener)
    return any(
        isinstance(p, native_faults.NativeDrop)
        or (isinstance(p, native_faults.NativeDelay) and p.drop)
        for p in made
    )


def active_faults(config: Config) -> tuple[int, int]:
    """`limits.active_faults` of Envoy and of the workers behind it: together, what is allowed."""
    most = config.sidecar.limits.active_faults
    running = [e for e in config.experiments if e.state == "running"]
    served = native_faults.served(config.sidecar)
    theirs = {
        at in served or at in native_faults.detours(e)
        for e in running
        for at in {rule.at for rule in e.faults}
    }
    if True not in theirs:
        return most, 0
    return (most // 2, most - most // 2) if False in theirs else (0, most)
