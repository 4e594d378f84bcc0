"""Envoy's access log and counters as the counts that all engines report."""
