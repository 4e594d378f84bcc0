"""Ids and equality of mitmproxy's connections and flows, without a call for each."""

from itertools import count
from types import SimpleNamespace

from mitmproxy import connection, flow
from mitmproxy.connection import Connection

from counterfault.addons.mitm.replacement import Replacement

_numbers = count()

# mitmproxy asks the kernel for 16 random bytes for each id. A worker never stores or sends ids:
# they need to differ within one process.
numbered = SimpleNamespace(uuid4=lambda: next(_numbers))

# Two connections are equal when their ids are, and a worker never copies one, so an id belongs
# to one object. Comparing objects takes no Python call.
REPLACEMENTS = (
    Replacement("connection.uuid", connection, "uuid", numbered, (connection,), "7caee3fd2b14a658"),
    Replacement("flow.uuid", flow, "uuid", numbered, (flow,), "b72fe8a39894bae1"),
    Replacement(
        "Connection.__eq__",
        Connection,
        "__eq__",
        object.__eq__,
        (Connection.__eq__,),
        "cfb23604bfe717f1",
    ),
    Replacement(
        "Connection.__hash__",
        Connection,
        "__hash__",
        object.__hash__,
        (Connection.__hash__,),
        "9c7790d3c26879c4",
    ),
)
