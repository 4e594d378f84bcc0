"""Typed JSON: what the API answers, what reports print and what the history keeps of a run."""
