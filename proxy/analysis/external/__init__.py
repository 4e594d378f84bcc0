"""Steady-state metrics that a Prometheus server holds: queries, responses, readings."""
