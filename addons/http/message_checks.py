"""Questions about a request's or a response's head."""

import re
from itertools import chain

from mitmproxy import http
from mitmproxy.net.http.http1 import expected_http_body_size

from counterfault.proxy.config.sidecar import Limits

# Bytes up to which a response counts as short.
_SHORT = 1 << 20
_LINE_BREAK_OR_NUL = re.compile(rb"[\r\n\0]")


def is_interim(response: http.Response) -> bool:
    """Return whether another response follows this one; after a 101 none does."""
    return 100 <= response.status_code < 200 and response.status_code != 101


def is_short(request: http.Request, response: http.Response) -> bool:
    """Return whether a response's head promises a body of at most 1 MiB."""
    try:
        size = expected_http_body_size(request, response)
    except ValueError:
        return False
    return size is not None and 0 <= size <= _SHORT


def exceeds_limits(headers: http.Headers, limits: Limits) -> bool:
    """Return whether a request has more headers, or larger ones, than a client may send."""
    fields = headers.fields
    size = sum(map(len, chain.from_iterable(fields)))
    return len(fields) > limits.head_count or size > limits.head_bytes


def splits_headers(message: http.Message) -> bool:
    """Return whether a header has CR, LF or NUL, so that others may read it as two headers."""
    return bool(_LINE_BREAK_OR_NUL.search(b"".join(chain.from_iterable(message.headers.fields))))
