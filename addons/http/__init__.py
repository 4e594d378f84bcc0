"""HTTP/1 and HTTP/2: codecs towards clients and upstreams, and the stream of one request."""
