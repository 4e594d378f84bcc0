"""Faults: one module for each, the actions that they lead to, and doses.

`registry` holds the faults that a configuration can name, those of other packages included.
"""

from counterfault.proxy.faults.base import Fault, Random

__all__ = ["Fault", "Random"]
