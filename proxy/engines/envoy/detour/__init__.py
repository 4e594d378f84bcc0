"""Workers behind Envoy, for faults and listeners that Envoy cannot serve itself."""
