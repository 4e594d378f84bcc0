"""Other bodies in place of the upstream's: damaged bytes, a changed place in JSON, a part."""

import json
from collections.abc import Callable
from math import log
from random import Random
from typing import Any

from counterfault.proxy.faults.actions import Flip, Patch


class Flips:
    """Changes a share of the bytes that pass; `began` is called with the first one."""

    def __init__(self, flip: Flip, began: Callable[[], None]) -> None:
        self._random = Random(flip.seed)
        self._share, self._began = flip.share, began
        self._left = self._gap()

    def feed(self, data: bytes) -> bytes:
        changed = bytearray(data)
        while self._left < len(changed):
            self._began()
            changed[self._left] ^= self._random.randrange(1, 256)
            self._left += 1 + self._gap()
        self._left -= len(changed)
        return bytes(changed)

    def rest(self) -> bytes:
        """What is kept, once the fault is over."""
        return b""

    def _gap(self) -> int:
        """How many bytes pass unharmed before the next one that does not: geometric."""
        if self._share >= 1:
            return 0
        return int(log(1 - self._random.random()) / log(1 - self._share))


class Cut:
    """Lets the first bytes through: so many, or a share of what has come so far.

    A share of a body of unknown length keeps back what the rest of it may still need, up to
    `keep` bytes; then it cuts there.
    """

    def __init__(self, after: int | None, share: float, keep: int) -> None:
        self._after, self._share, self._keep = after, share, keep
        self._seen = self._passed = 0
        self._kept = b""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        self._seen += len(data)
        data = self._kept + data
        most = int(self._seen * self._share) if self._after is None else self._after
        passed, self._kept = data[: most - self._passed], data[most - self._passed :]
        self._passed += len(passed)
        if self._after is not None:
            self.done, self._kept = bool(self._kept), b""
        else:
            self.done = len(self._kept) > self._keep
        return passed

    def rest(self) -> bytes:
        """What is kept, once the fault is over."""
        kept, self._kept = self._kept, b""
        return kept

    def end(self) -> None:
        """The body is over: of a share, this is where to cut."""
        self.done = self.done or bool(self._kept)


def patched(body: bytes, patch: Patch) -> bytes | None:
    """A JSON document with a change; None if it is none, or has no such place."""
    try:
        document = json.loads(body)
        document = _set(document, patch.pointer, patch)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _set(at: Any, steps: tuple[str, ...], patch: Patch) -> Any:
    """RFC 6901; members may be new, items of lists may not."""
    if not steps:
        return patch.value
    step, rest = steps[0], steps[1:]
    if isinstance(at, list):
        if not (step.isascii() and step.isdecimal()) or (step[0] == "0" and step != "0"):
            raise LookupError(step)
        key: Any = int(step)
    elif isinstance(at, dict):
        key = step
        if step not in at and (rest or patch.remove):
            raise LookupError(step)
    else:
        raise LookupError(step)
    if patch.remove and not rest:
        del at[key]
    else:
        at[key] = _set(at[key] if rest else None, rest, patch)
    return at
