"""The part of the supervisor that only reads: functions that answer a GET take nothing more."""

from collections.abc import Callable
from typing import Protocol

from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import Key
from counterfault.proxy.measurement.traffic import Traffic
from counterfault.proxy.supervisor.run_reader import RunReader


class Counts(Protocol):
    """What all processes have counted; `Totals` without the methods that add."""

    def get(self, key: Key, /) -> float:
        """Return the sum over all processes; 0 for a key that was never counted."""

    def traffic(
        self, experiment: str, epoch: Epoch, listener: str, cohort: str, /
    ) -> Traffic | None:
        """Return the exchanges at a listener that began in an epoch and have ended; None: none."""


class DataPlaneState(Protocol):
    """How the data plane is; an `Engine` without the methods that change it."""

    @property
    def ready(self) -> int:
        """How many workers act on the present plan."""

    @property
    def serves(self) -> bool:
        """Whether traffic passes at all, on this plan or an earlier one."""

    @property
    def pids(self) -> list[int]:
        """The worker processes."""

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all workers."""


class SidecarState(Protocol):
    """What the admin port shows. `Supervisor` implements it, and has the methods that act.

    A function that takes a SidecarState cannot stop or reload anything: mypy refuses the call.
    """

    @property
    def config(self) -> Config:
        """The configuration in use."""

    @property
    def reader(self) -> RunReader:
        """The present runs and the history."""

    @property
    def totals(self) -> Counts:
        """What the workers and the supervisor have counted."""

    @property
    def engine(self) -> DataPlaneState:
        """How the data plane is."""

    @property
    def faults_active(self) -> int:
        """How many faults are under way in all workers together."""

    @property
    def reload_error(self) -> ConfigError | None:
        """Why the last reload failed; None if it did not."""

    @property
    def reloaded_at(self) -> float:
        """When the configuration in use was loaded, in Unix seconds."""

    @property
    def uptime(self) -> float:
        """Seconds since the supervisor started."""

    @property
    def lease_remaining(self) -> float:
        """Seconds until the lease runs out, 0 if it has."""

    @property
    def wall(self) -> Callable[[], float]:
        """A clock that returns Unix seconds."""
