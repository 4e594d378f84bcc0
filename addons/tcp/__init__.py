"""Raw TCP connections: their two directions, and faults for their turns."""
