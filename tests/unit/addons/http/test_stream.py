"""What a stream does in states where mitmproxy's own has only an assert."""

from typing import Any

import pytest
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpStream

from counterfault.addons.http.stream import SidecarStream
from counterfault.addons.mitm.options import options
from counterfault.addons.mitm.private import ResponseData, ResponseEndOfMessage

CLIENT = Client(peername=("::1", 1), sockname=("::1", 2), state=ConnectionState.OPEN)


@pytest.mark.parametrize("event", [ResponseData(1, b"late"), ResponseEndOfMessage(1)])
def test_the_rest_of_a_cancelled_response_is_ignored_with_asserts_too(event: events.Event) -> None:
    peer: Any = None
    stream = SidecarStream(Context(CLIENT, options()), 1, peer, None, {}, lambda server: 0)
    assert list(stream.state_done(event)) == []
    with pytest.raises(AssertionError, match="state_done"):
        list(HttpStream.state_done(stream, event))
