"""What is counted: counters, totals, samples per replicate, quantiles, distinct users."""
