"""The Envoy process: its directory, delivery of configuration, drain, and the delay server."""
