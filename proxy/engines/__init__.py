"""The data planes, each behind the same small interface."""
