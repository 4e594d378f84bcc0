"""Is the experiment cohort worse than control by more than the tolerance? Pure arithmetic."""
