"""What `make simulate` finds out in an hour, in seconds: which promises are broken."""

from collections.abc import Iterator
from dataclasses import replace

from counterfault.proxy.analysis.comparison import Comparison
from tests.simulate import adversity
from tests.simulate.adversity import Adversity
from tests.simulate.conditions import Conditions, Harm, Load, Users
from tests.simulate.exact import chance
from tests.simulate.met import Said
from tests.simulate.scenarios import ALPHA, ERRORS, metric

_SEED = 3
_RUNS = 24
# Few requests say something of a wide tolerance only.
_WIDE = metric(success_rate={"drop": "20pp"})
_LOOKS = (32, 64, 96, 128, 192)
_LEVEL, _TOLERANCE = 0.3, 0.2
_SURE = 0.95
# So alike that requests that were taken for independent would be wrong by far.
_ALIKE = Conditions(Users(300, icc=0.3), Load(100), seconds=60, baseline=10, errors=0.05)


def broken() -> Iterator[str]:
    """Yield each promise that is broken, with the figure."""
    yield from _exact()
    yield from _simulated()


def _exact() -> Iterator[str]:
    at = _LEVEL + _TOLERANCE
    refuted = chance(_WIDE, (_LEVEL, at), _LOOKS, _is_harmed)
    if refuted > ALPHA:
        yield f"refuted at the tolerance with a chance of {refuted:.4f}"
    held = chance(_WIDE, (_LEVEL, at), _LOOKS, _is_within)
    if held > ALPHA:
        yield f"held at the tolerance with a chance of {held:.4f}"
    found = chance(_WIDE, (0.05, 0.7), _LOOKS, _is_harmed)
    if found < _SURE:
        yield f"an outage is found with a chance of {found:.4f} only"
    found = chance(_WIDE, (0.05, 0.05), _LOOKS, _is_within)
    if found < _SURE:
        yield f"the absence of an effect is found with a chance of {found:.4f} only"


def _simulated() -> Iterator[str]:
    harm = replace(_ALIKE, harm=Harm(errors=0.005))
    cell = Adversity("small", "users who are alike", ERRORS, harm, {})
    runs = [adversity.run(cell, _SEED, number) for number in range(_RUNS)]
    for name, hits in (
        ("refuted", sum(run.refuted > 0 for run in runs)),
        ("held", sum(run.held > 0 for run in runs)),
    ):
        if not Said(hits, _RUNS, ALPHA).is_sound:
            yield f"users who are alike: {name} at the tolerance in {hits} of {_RUNS} runs"


def _is_harmed(found: Comparison) -> bool:
    return found.harmed


def _is_within(found: Comparison) -> bool:
    return found.within
