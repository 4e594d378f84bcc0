"""Counting: counters, totals, samples per replicate, quantiles and distinct users."""
