"""httpbin on a port, over HTTP/1.1 with keep-alive: `python httpbin_server.py PORT`."""

import logging
import sys

from httpbin import app
from werkzeug.serving import WSGIRequestHandler, run_simple


class Handler(WSGIRequestHandler):
    """werkzeug's, as an upstream of today speaks."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle would hold the second back for 40 ms.
    disable_nagle_algorithm = True


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Handler)
