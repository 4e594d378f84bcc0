"""Raw TCP connections: the layer that relays them, their enrolment, directions and turns."""
