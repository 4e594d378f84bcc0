"""WebSocket: frames, and faults for single messages."""
