"""The supervisor's own port: page, metrics, probes and API."""
