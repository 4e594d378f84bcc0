"""Envoy as the data plane: the configuration it gets, its process, and what it counts."""
