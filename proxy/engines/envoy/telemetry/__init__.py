"""Envoy's access log and counters, turned into the counts that all engines report."""
