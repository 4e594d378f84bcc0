"""The table of faults runs on every engine; tests that begin runs have each its own."""

from conforming import engine
from runs import world

__all__ = ["engine", "world"]
