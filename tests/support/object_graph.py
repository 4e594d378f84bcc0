"""An object with all that it holds, as plain data: two of them can be compared."""

import asyncio
import mmap
import sqlite3
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from enum import Enum
from functools import cached_property, lru_cache
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from counterfault.proxy.engines.fault_budget import Budget
from counterfault.proxy.measurement.totals import Totals

type Plain = Any

# Of the process, not of the run: they differ between two equal supervisors. The models of the
# configuration are frozen.
_IGNORED = (asyncio.Lock, asyncio.Event, mmap.mmap, sqlite3.Connection, Path, BaseModel)
# Copies that can be made again at any time from what stands beside them, and a file descriptor.
_LEFT_OUT: dict[type, frozenset[str]] = {
    Totals: frozenset({"_samples"}),
    Budget: frozenset({"fd"}),
}


def contents(thing: object) -> Plain:
    """Everything that can be reached from `thing` by attributes and items, without functions.

    What `functools.cached_property` has stored, and what `_LEFT_OUT` names, is
    computed from the rest and is not among the contents.
    """
    return _contents(thing, ())


def _contents(thing: object, above: tuple[int, ...]) -> Plain:
    if thing is None or isinstance(thing, str | int | float | bytes | Enum):
        return thing
    if id(thing) in above:
        return "…"
    inside = (*above, id(thing))
    if isinstance(thing, np.ndarray):
        return str(thing.shape), sha256(thing.tobytes()).hexdigest()
    if isinstance(thing, Mapping):
        rows = ((_repr(key), _contents(value, inside)) for key, value in thing.items())
        return dict(sorted(rows, key=itemgetter(0)))
    if isinstance(thing, list | tuple | deque):
        return [_contents(value, inside) for value in thing]
    if isinstance(thing, set | frozenset):
        return sorted(map(_repr, thing))
    if callable(thing) or isinstance(thing, _IGNORED):
        return type(thing).__name__
    return {name: _contents(value, inside) for name, value in sorted(_attributes(thing))}


@lru_cache(maxsize=100_000, typed=True)
def _repr(key: Hashable) -> str:
    """`repr`, kept: a graph has thousands of keys, the same ones each time it is read."""
    return repr(key)


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    kind = type(thing)
    left_out = _LEFT_OUT.get(kind, frozenset())
    slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
    for name in {*getattr(thing, "__dict__", {}), *slots} - left_out:
        if not isinstance(getattr(kind, name, None), cached_property) and hasattr(thing, name):
            yield name, getattr(thing, name)
