"""What mitmproxy is given and what is replaced in it: options, hooks, and faster functions."""
