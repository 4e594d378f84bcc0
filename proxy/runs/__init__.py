"""Runs and what is kept of them: registry, history on disk, snapshots, summaries, evaluation."""
