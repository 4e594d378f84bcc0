"""The control loop: ticks, reloads, the lease, the config watcher and the Prometheus poller."""
