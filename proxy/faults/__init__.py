"""The fault catalogue: each module here defines one fault."""

from importlib import import_module
from pkgutil import iter_modules

from counterfault.proxy.faults.base import Fault, Random

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

KNOWN = dict(sorted(Fault.known.items()))

__all__ = ["KNOWN", "Fault", "Random"]
