"""The Envoy process and what surrounds it on the host.

Its directory, certificates, delivery of configuration, drain, and the delay server.
"""
