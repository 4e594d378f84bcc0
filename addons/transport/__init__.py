"""Sockets, client connections, idle limits, TLS and issued certificates."""
