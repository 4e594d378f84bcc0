"""Everything that touches mitmproxy: the worker process and what it does with a request."""
