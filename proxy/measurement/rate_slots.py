"""Events of rates by the slot in which their requests arrived, until a watermark has passed it.

A rate is fair to a slow cohort only if it compares requests that arrived, not exchanges that ended:
see `analysis.watermark` for the slot up to which both cohorts are compared.
"""

from collections import defaultdict
from collections.abc import Iterator

from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import KeptEpochs, RateKey

type _Epoch = tuple[str, Epoch]


class RateSlots:
    """The cumulative counts of all processes, in slots that are not settled yet."""

    def __init__(self) -> None:
        """Begin without events."""
        self._waiting: defaultdict[_Epoch, dict[int, dict[tuple[str, RateKey], float]]]
        self._waiting = defaultdict(dict)
        self._settled: dict[_Epoch, int] = {}
        """The first slot that is not settled."""

    def update(self, incarnation: str, key: RateKey, value: float) -> None:
        """Take a cumulative count of a process; one of a settled slot is too late and ignored."""
        epoch = (key.experiment, key.epoch)
        if key.slot < self._settled.get(epoch, key.slot):
            return
        counts = self._waiting[epoch].setdefault(key.slot, {})
        counts[incarnation, key] = max(value, counts.get((incarnation, key), 0))

    def settle(self, experiment: str, epoch: Epoch, before: int) -> Iterator[tuple[RateKey, float]]:
        """Yield the counts of the slots before `before` and forget them; later ones are ignored."""
        group = (experiment, epoch)
        if before <= self._settled.get(group, before - 1):
            return
        self._settled[group] = before
        waiting = self._waiting.get(group, {})
        for slot in [slot for slot in waiting if slot < before]:
            for (_, key), count in waiting.pop(slot).items():
                yield key, count

    def forget_others(self, kept: KeptEpochs) -> None:
        """Drop the counts of all epochs but these."""
        for group in [group for group in self._waiting if not kept.has_epoch(*group)]:
            del self._waiting[group]
        for group in [group for group in self._settled if not kept.has_epoch(*group)]:
            del self._settled[group]
