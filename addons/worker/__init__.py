"""The worker process: fork server, link to the supervisor, listeners, clients and their layers."""
