"""The supervisor, the core that decides, and the data planes; nothing here imports mitmproxy."""
