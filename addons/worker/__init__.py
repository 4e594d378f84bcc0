"""The worker process: fork server, control socket, listeners, and the layers of a connection."""
