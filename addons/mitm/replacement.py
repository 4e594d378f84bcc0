"""Functions of mitmproxy that a faster one of ours replaces, as long as ours still fits.

Ours was written against a certain source. `install` compares the source that is installed with
it; where they differ, mitmproxy's own function stays in place: slower, and right.
"""

import hashlib
import inspect
import linecache
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import dedent
from types import ModuleType
from typing import Any

from mitmproxy.version import VERSION

log = logging.getLogger("counterfault")


@dataclass(frozen=True, slots=True)
class Replacement:
    """One attribute of a class or a module of mitmproxy, and what goes in its place."""

    name: str
    """What the log calls it."""
    owner: Any
    """The class or module."""
    attribute: str
    ours: Any
    sources: tuple[Any, ...]
    """Functions, classes and modules whose behaviour ours reproduces.

    Of a module, only the lines that mention `attribute` count. Of what is not mitmproxy's own,
    only its name: that tells whether mitmproxy still inherits it.
    """
    written_against: str
    """The `source_hash` of the mitmproxy that ours was written against."""

    def fits(self) -> bool:
        """Return whether the installed source is the one that ours was written against.

        False also where the source cannot be read, as in an installation that holds compiled
        files alone: then nothing shows that ours still does the same.
        """
        try:
            return source_hash(self) == self.written_against
        except (OSError, TypeError):
            return False


def source_hash(replacement: Replacement) -> str:
    """Return 16 hex digits of a hash of the sources, whatever their indentation and blank lines.

    Raises:
        OSError: A source cannot be read.
        TypeError: It is no Python source at all: mitmproxy has compiled it.
    """
    parts = (_source(each, replacement.attribute) for each in replacement.sources)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def install(replacements: Iterable[Replacement]) -> tuple[str, ...]:
    """Replace what fits. Returns the names of what does not; one warning says so.

    For a process that does nothing but serve: all of mitmproxy in it is affected.
    """
    wanted = [each for each in replacements if vars(each.owner).get(each.attribute) != each.ours]
    # Before anything is replaced: the sources of one may be functions that another replaces.
    fitting = [each for each in wanted if each.fits()]
    linecache.clearcache()  # inspect has left whole files there
    for each in fitting:
        setattr(each.owner, each.attribute, each.ours)
    left = tuple(each.name for each in wanted if each not in fitting)
    if left:
        log.warning(
            "mitmproxy %s: %s: the source is not the one that the faster version was written"
            " against, or cannot be read; mitmproxy's own stays (same results, slower)",
            VERSION,
            ", ".join(left),
        )
    return left


def _source(source: Any, attribute: str) -> str:
    if isinstance(source, ModuleType):
        lines = inspect.getsource(source).splitlines()
        return "\n".join(line.strip() for line in lines if attribute in line)
    name = f"{source.__module__}.{source.__qualname__}"
    if not source.__module__.startswith("mitmproxy."):
        return name
    lines = dedent(inspect.getsource(source)).splitlines()
    return "\n".join([name, *(line.rstrip() for line in lines if line.strip())])
