"""The table of faults runs on every engine; tests that begin runs have each its own."""

from tests.support.conformance import engine
from tests.support.fresh_run import world

__all__ = ["engine", "world"]
