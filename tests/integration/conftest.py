"""Tests that ask for `engine` run on each: it must make no difference to a user."""

from tests.support.conformance import engine

__all__ = ["engine"]
