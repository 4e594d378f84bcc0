"""Edits of a response body: flipped bytes, a cut, a patched JSON document."""

import json
from collections.abc import Callable
from math import log
from random import Random
from typing import Any

from counterfault.proxy.faults.actions import Flip, Patch


class Flips:
    """Changes a random share of the bytes that pass."""

    def __init__(self, flip: Flip, began: Callable[[], None]) -> None:
        """`began` is called before each byte that is changed."""
        self._random = Random(flip.seed)
        self._share, self._began = flip.share, began
        self._left = self._gap()

    def feed(self, data: bytes) -> bytes:
        """Return the next part of the body with its flipped bytes."""
        changed = bytearray(data)
        while self._left < len(changed):
            self._began()
            changed[self._left] ^= self._random.randrange(1, 256)
            self._left += 1 + self._gap()
        self._left -= len(changed)
        return bytes(changed)

    def flush(self) -> bytes:
        """Return what was held back, once the fault is over: nothing here."""
        return b""

    def _gap(self) -> int:
        """Draw how many bytes pass unchanged before the next flip (geometric distribution)."""
        if self._share >= 1:
            return 0
        return int(log(1 - self._random.random()) / log(1 - self._share))


class Cut:
    """Lets the first bytes of a body through and drops the rest.

    A share of a body of unknown length grows with every part that comes. So it passes on that
    share of what has come, holds back the others up to `keep` bytes, and then cuts there.
    """

    def __init__(self, after: int | None, share: float, keep: int) -> None:
        """Prepare for one body.

        Args:
            after: How many bytes pass; None: the share decides.
            share: Which share of the body passes, 0 to 1.
            keep: The most bytes to hold back for a share.
        """
        self._after, self._share, self._keep = after, share, keep
        self._seen = self._passed = 0
        self._kept = b""
        self.done = False
        """Whether the body is to be cut off here."""

    def feed(self, data: bytes) -> bytes:
        """Return what passes now that the next part of the body has come."""
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

    def flush(self) -> bytes:
        """Return what was held back, once the fault is over."""
        kept, self._kept = self._kept, b""
        return kept

    def end(self) -> None:
        """Learn that the body is complete, so that a share of it is known and the cut is due."""
        self.done = self.done or bool(self._kept)


def patched(body: bytes, patch: Patch) -> bytes | None:
    """Return a JSON document with one change; None if it is no JSON or has no such member."""
    try:
        document = json.loads(body)
        document = _set(document, patch.pointer, patch)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _set(at: Any, steps: tuple[str, ...], patch: Patch) -> Any:
    """Follow a JSON pointer (RFC 6901); it may name a new member, but no new item of a list."""
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
