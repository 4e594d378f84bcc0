"""Values that users write and requests carry: durations, shares, addresses, matchers, schedules."""
