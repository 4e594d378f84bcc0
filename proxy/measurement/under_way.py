"""The enrolled exchanges that are under way in one process, by the slot in which they began.

A slot is half a second of the monotonic clock, which all processes of a machine share. Only
exchanges that are under way when a report is made cost a row: most end before the next report.
"""

from collections.abc import Iterator

from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import OpenKey, Rows

SLOT = 0.5
"""Seconds."""
# Envoy's threads report through one pipe: a slot's last begin may come after one of the next slot.
_SETTLED = 2


def slot_of(at: float) -> int:
    """Return the slot of a time, in seconds of the monotonic clock."""
    return int(at / SLOT)


class UnderWay:
    """Counts begins and ends. Not for use by several threads."""

    def __init__(self) -> None:
        """Begin without an exchange."""
        self._open: dict[OpenKey, int] = {}
        self._changed: set[OpenKey] = set()
        self._reported: set[OpenKey] = set()
        """Keys whose last reported value is not zero."""
        self._latest = 0

    def begin(self, key: OpenKey) -> None:
        """Count an exchange that begins now."""
        self._open[key] = self._open.get(key, 0) + 1
        self._changed.add(key)
        self._latest = max(self._latest, key.slot)

    def end(self, key: OpenKey) -> None:
        """Count the end of an exchange; one whose begin was not counted is ignored."""
        count = self._open.get(key, 0)
        if count > 1:
            self._open[key] = count - 1
        elif count:
            del self._open[key]
        self._changed.add(key)

    def take_changed(self) -> Rows:
        """Return how many are under way, where that has changed since the last call."""
        rows: Rows = []
        for key in self._changed:
            count = self._open.get(key, 0)
            if count:
                self._reported.add(key)
            elif key in self._reported:
                self._reported.discard(key)
            else:
                continue  # it began and ended since the last report
            rows.append((key, count))
        self._changed.clear()
        return rows

    def everything(self) -> Rows:
        """Return how many are under way, for a supervisor that knows nothing yet."""
        self._reported = set(self._open)
        self._changed.clear()
        return list(self._open.items())

    def epochs(self) -> frozenset[tuple[str, Epoch]]:
        """Return the experiments and epochs in which exchanges that are under way began."""
        return frozenset((key.experiment, key.epoch) for key in self._open)

    def oldest_slot(self) -> int:
        """Return the first slot that may still get counts: an exchange of it may end or begin."""
        return min((self._latest - _SETTLED, *(key.slot for key in self._open)))

    def __iter__(self) -> Iterator[OpenKey]:
        """Iterate over the keys of the exchanges that are under way."""
        return iter(self._open)
