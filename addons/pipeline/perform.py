"""perform: carries out the action of a fault on an HTTP exchange."""

import time
from typing import assert_never

from mitmproxy import http
from mitmproxy.net.http import status_codes
from mitmproxy.net.http.http1 import expected_http_body_size

from counterfault.addons.faults.active_fault import ActiveFault
from counterfault.addons.faults.body_edits import Cut, Flips
from counterfault.addons.faults.exchange_effects import KEEP, ExchangeEffects, apply_edit
from counterfault.addons.pipeline.exchange import Exchange
from counterfault.proxy.faults.actions import (
    Delay,
    Disconnect,
    Edit,
    Flip,
    Hang,
    Patch,
    Repeat,
    Replace,
    Respond,
    Rewrite,
    Throttle,
    Truncate,
)

_NO_EDIT = Edit()


async def perform(flow: http.HTTPFlow, exchange: Exchange, fault: ActiveFault) -> bool:
    """Perform a fault, which may take its time.

    Returns True if the fault goes on afterwards, in the effects of the exchange. Returns False if
    it is over, or if it cannot be performed on this exchange; then the caller releases it.
    """
    match fault.injection.action:
        case Delay(seconds):
            fault.performed()
            await fault.wait(seconds)
        case Respond(status, headers, body):
            fault.performed()
            exchange.replaced = True
            flow.request.stream = False  # no upstream will read the body
            flow.response = _response(flow.request, status, headers, body)
        case Disconnect(reset):
            fault.performed()
            if reset and not flow.request.is_http2:
                exchange.peer.reset()
            flow.kill()
        case Hang(seconds):
            fault.performed()
            if await fault.wait(seconds):
                flow.kill()
        case Throttle(up, down):
            effects = _effects(exchange)
            if up is not None:
                effects.limit_request_rate(up, fault)
            if down is not None:
                effects.limit_response_rate(down, fault)
            return True
        case Truncate() as truncate:
            return _truncate(flow, exchange, truncate, fault)
        case Rewrite() as rewrite:
            return _rewrite(flow, exchange, rewrite, fault)
        case Repeat(times):
            return _repeat(flow, exchange, times, fault)
        case other:
            assert_never(other)
    return False


def _truncate(
    flow: http.HTTPFlow, exchange: Exchange, truncate: Truncate, fault: ActiveFault
) -> bool:
    size = _body_size(flow)
    after = truncate.after
    if size is not None:
        after = int(size * truncate.share) if truncate.share is not None else after
        if after is None or after >= size:
            return False
    cut = Cut(after, truncate.share or 0.0, KEEP)
    _effects(exchange).body_edits.append((cut, fault))
    return True


def _rewrite(flow: http.HTTPFlow, exchange: Exchange, rewrite: Rewrite, fault: ActiveFault) -> bool:
    if rewrite.body is not None:
        return _body_size(flow) != 0 and _body(flow, exchange, rewrite.body, fault)
    if rewrite.request != _NO_EDIT:
        fault.performed()
        apply_edit(flow.request.headers, rewrite.request)
    if rewrite.response == _NO_EDIT:
        return False
    _effects(exchange).head_edits.append((rewrite.response, fault))
    return True


def _body(
    flow: http.HTTPFlow,
    exchange: Exchange,
    body: Flip | Replace | Patch,
    fault: ActiveFault,
) -> bool:
    if flow.response is None:
        return False
    match body:
        case Flip():
            flips = Flips(body, fault.performed)
            _effects(exchange).body_edits.append((flips, fault))
            return True
        case Replace(content):
            fault.performed()
            exchange.replaced = True
            flow.response = _with_body(flow.response, content)
            return False
        case Patch():
            return _patch(flow, flow.response, exchange, body, fault)
        case other:
            assert_never(other)


def _patch(
    flow: http.HTTPFlow,
    response: http.Response,
    exchange: Exchange,
    patch: Patch,
    fault: ActiveFault,
) -> bool:
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    if encoded or (_body_size(flow) or 0) > KEEP:
        return False
    response.stream = False
    _effects(exchange).patches.append((patch, fault))
    return True


def _repeat(flow: http.HTTPFlow, exchange: Exchange, times: int, fault: ActiveFault) -> bool:
    size = flow.request.headers.get("content-length", "0")
    if "upgrade" in flow.request.headers or not size.isdecimal() or int(size) > KEEP:
        return False
    _effects(exchange).copies.append((times - 1, fault))
    return True


def _effects(exchange: Exchange) -> ExchangeEffects:
    """Return the effects of an exchange, which most exchanges do not need."""
    exchange.effects = exchange.effects or ExchangeEffects(exchange.peer.message_faults.clock)
    return exchange.effects


def _body_size(flow: http.HTTPFlow) -> int | None:
    """Return the length of the response's body; None if its head does not say."""
    try:
        size = expected_http_body_size(flow.request, flow.response)
    except ValueError:
        return None
    return None if size is None or size < 0 else size


def _response(
    request: http.Request, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes
) -> http.Response:
    has_body = status not in (204, 304)
    # A gRPC response that is Trailers-Only is one head with END_STREAM: it has no content-length.
    sends_length = has_body and (body or not request.is_http2)
    framing = ((b"content-length", str(len(body)).encode()),) if sends_length else ()
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=status,
        reason=status_codes.RESPONSES.get(status, "").encode(),
        headers=http.Headers((*headers, *framing)),
        content=body if has_body else b"",
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def _with_body(response: http.Response, content: bytes) -> http.Response:
    """Return a copy of the response with another body, and without headers about the old one."""
    changed = response.copy()
    size = ((b"content-length", b"%d" % len(content)),)
    gone = (b"content-length", b"transfer-encoding", b"content-encoding", b"trailer")
    apply_edit(changed.headers, Edit(gone, size))
    changed.data.content = content
    return changed
