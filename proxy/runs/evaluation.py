"""What an evaluation of a run asks its registry to do."""

from dataclasses import dataclass

from counterfault.proxy.experiments.lifecycle import Reason


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Reasons to stop a run, the weightiest first, and whether all its metrics are within."""

    stops: tuple[Reason, ...] = ()
    held: bool = False
