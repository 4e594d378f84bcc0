"""The mitmproxy engine as its parent sees it: a pool of worker processes."""
