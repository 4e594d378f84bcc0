"""The lease as Envoy sees it: the time until which its Lua program may inject faults."""

import time

from counterfault.proxy.engines.envoy.runtime.run_directory import RunDirectory


class Lease:
    """Writes the supervisor's lease into the run directory, or withholds it.

    Envoy may still act on an old plan whose faults have ended. So after the end of a lease, and
    after a rejected plan, Envoy gets no lease until it acts on the latest plan.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._until = 0.0
        self._withheld = False

    @property
    def until(self) -> float:
        """The end of the supervisor's lease, in seconds of the monotonic clock."""
        return self._until

    def withhold_if_over(self) -> None:
        """Withhold the lease if the last one has ended: its runs are not in the next plan."""
        if self._until < time.monotonic():
            self._withheld = True

    def extend(self, until: float) -> None:
        """Extend the lease, in seconds of the monotonic clock. Raises OSError."""
        self._until = until
        if not self._withheld:
            self._directory.write_lease(until)

    def grant(self) -> None:
        """Give Envoy the present lease: it acts on the latest plan. Raises OSError."""
        self._withheld = False
        self._directory.write_lease(self._until)

    def revoke(self) -> None:
        """End all faults now, and withhold the lease. Raises OSError."""
        self._withheld = True
        self._directory.write_lease(0.0)
