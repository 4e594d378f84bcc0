"""Faults while they are performed: active faults, pacing, body edits, effects on an exchange."""
