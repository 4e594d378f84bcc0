"""The faults that a configuration can name: those of this package, and those of other packages.

Another package offers a fault as an entry point; see docs/adding-a-fault.md. The supervisor and the
workers import this module, and so have the same faults. It is no part of the package's `__init__`,
so that a module which defines a fault can be imported before the entry points are looked at.
"""

import logging
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules

from counterfault.proxy import faults
from counterfault.proxy.faults.base import RULE_KEYS, Fault, fault_name_problem

log = logging.getLogger("counterfault")

GROUP = "counterfault.faults"
"""The group of the entry points that offer faults."""


def _built_in() -> dict[str, type[Fault]]:
    """The faults that are defined by the modules of this package, by name."""
    modules = [f"{faults.__name__}.{module.name}" for module in iter_modules(faults.__path__)]
    for module in modules:
        if module != __name__:
            import_module(module)
    return {name: kind for name, kind in Fault.known.items() if kind.__module__ in modules}


def load_faults(
    offered: Iterable[EntryPoint], known: Mapping[str, type[Fault]]
) -> tuple[dict[str, type[Fault]], list[str]]:
    """Load the faults of other packages.

    A fault that cannot be loaded is left out, whatever it raises; the others are not affected.

    Args:
        offered: The entry points. Each is named like its fault and refers to a `Fault` class.
        known: The faults there are, whose names are taken.

    Returns:
        The faults that were loaded by name, and a sentence for each that was not.
    """
    loaded: dict[str, type[Fault]] = {}
    problems = []
    for entry in sorted(offered, key=lambda e: (e.name, e.value)):
        try:
            loaded[entry.name] = _load(entry, {**known, **loaded})
        except (Exception, SystemExit) as e:
            package = f" of package {entry.dist.name}" if entry.dist is not None else ""
            reason = str(e) if isinstance(e, _Refused) else f"{type(e).__name__}: {e}"
            problems.append(f"fault {entry.name!r}{package} is not available: {reason}")
    return loaded, problems


class _Refused(Exception):
    """An entry point that does not offer a fault as it should."""


def _load(entry: EntryPoint, known: Mapping[str, type[Fault]]) -> type[Fault]:
    problem = fault_name_problem(entry.name)
    if problem is not None:
        raise _Refused(problem)
    if (taken := known.get(entry.name)) is not None:
        raise _Refused(f"{taken.__module__} has a fault of that name")
    kind = entry.load()
    if not (isinstance(kind, type) and issubclass(kind, Fault)):
        raise _Refused(f"{entry.value} is no subclass of Fault")
    if getattr(kind, "name", None) != entry.name:
        given = getattr(kind, "name", None)
        raise _Refused(f"{entry.value} has the name {given!r}, not that of its entry point")
    return kind


BUILT_IN: dict[str, type[Fault]] = dict(sorted(_built_in().items()))
"""The faults of this package by name, in alphabetical order."""

_loaded, PROBLEMS = load_faults(entry_points(group=GROUP), BUILT_IN)
for _problem in PROBLEMS:
    log.error("%s", _problem)

KNOWN: dict[str, type[Fault]] = dict(sorted({**BUILT_IN, **_loaded}.items()))
"""All faults by name, in alphabetical order."""

__all__ = ["BUILT_IN", "GROUP", "KNOWN", "PROBLEMS", "RULE_KEYS", "load_faults"]
