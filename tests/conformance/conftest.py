"""The table of faults runs on every engine."""

from conforming import engine

__all__ = ["engine"]
