"""Workers behind Envoy, for faults that Envoy cannot perform by itself."""
