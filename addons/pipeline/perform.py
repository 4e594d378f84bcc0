"""perform: what a fault does to an exchange, an action at a time."""

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


async def perform(flow: http.HTTPFlow, exchange: Exchange, claim: ActiveFault) -> bool:
    """Perform a fault; True if it lasts beyond this moment, False if it is over or impossible."""
    match claim.injection.action:
        case Delay(seconds):
            claim.performed()
            await claim.wait(seconds)
        case Respond(status, headers, body):
            claim.performed()
            exchange.replaced = True
            flow.request.stream = False  # nobody upstream will read it
            flow.response = _answer(flow.request, status, headers, body)
        case Disconnect(reset):
            claim.performed()
            if reset and not flow.request.is_http2:
                exchange.peer.reset()
            flow.kill()
        case Hang(seconds):
            claim.performed()
            if await claim.wait(seconds):
                flow.kill()
        case Throttle(up, down):
            effects = _effects(exchange)
            if up is not None:
                effects.limit_request_rate(up, claim)
            if down is not None:
                effects.limit_response_rate(down, claim)
            return True
        case Truncate() as truncate:
            return _truncate(flow, exchange, truncate, claim)
        case Rewrite() as rewrite:
            return _rewrite(flow, exchange, rewrite, claim)
        case Repeat(times):
            return _repeat(flow, exchange, times, claim)
        case other:
            assert_never(other)
    return False


def _truncate(
    flow: http.HTTPFlow, exchange: Exchange, truncate: Truncate, claim: ActiveFault
) -> bool:
    size = _body_size(flow)
    after = truncate.after
    if size is not None:
        after = int(size * truncate.share) if truncate.share is not None else after
        if after is None or after >= size:
            return False
    cut = Cut(after, truncate.share or 0.0, KEEP)
    _effects(exchange).body_edits.append((cut, claim))
    return True


def _rewrite(flow: http.HTTPFlow, exchange: Exchange, rewrite: Rewrite, claim: ActiveFault) -> bool:
    if rewrite.body is not None:
        return _body_size(flow) != 0 and _body(flow, exchange, rewrite.body, claim)
    if rewrite.request != _NO_EDIT:
        claim.performed()
        apply_edit(flow.request.headers, rewrite.request)
    if rewrite.response == _NO_EDIT:
        return False
    _effects(exchange).head_edits.append((rewrite.response, claim))
    return True


def _body(
    flow: http.HTTPFlow,
    exchange: Exchange,
    body: Flip | Replace | Patch,
    claim: ActiveFault,
) -> bool:
    if flow.response is None:
        return False
    match body:
        case Flip():
            flips = Flips(body, claim.performed)
            _effects(exchange).body_edits.append((flips, claim))
            return True
        case Replace(content):
            claim.performed()
            exchange.replaced = True
            flow.response = _other_body(flow.response, content)
            return False
        case Patch():
            return _patch(flow, flow.response, exchange, body, claim)
        case other:
            assert_never(other)


def _patch(
    flow: http.HTTPFlow,
    response: http.Response,
    exchange: Exchange,
    patch: Patch,
    claim: ActiveFault,
) -> bool:
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    if encoded or (_body_size(flow) or 0) > KEEP:
        return False
    response.stream = False
    _effects(exchange).patches.append((patch, claim))
    return True


def _repeat(flow: http.HTTPFlow, exchange: Exchange, times: int, claim: ActiveFault) -> bool:
    size = flow.request.headers.get("content-length", "0")
    if "upgrade" in flow.request.headers or not size.isdecimal() or int(size) > KEEP:
        return False
    _effects(exchange).copies.append((times - 1, claim))
    return True


def _effects(exchange: Exchange) -> ExchangeEffects:
    exchange.effects = exchange.effects or ExchangeEffects(exchange.peer.injecting.clock)
    return exchange.effects


def _body_size(flow: http.HTTPFlow) -> int | None:
    """Bytes of the answer's body; None if its head does not say."""
    try:
        size = expected_http_body_size(flow.request, flow.response)
    except ValueError:
        return None
    return None if size is None or size < 0 else size


def _answer(
    request: http.Request, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes
) -> http.Response:
    has_body = status not in (204, 304)
    # gRPC's Trailers-Only is a head with END_STREAM, which says it all.
    says_size = has_body and (body or not request.is_http2)
    framing = ((b"content-length", str(len(body)).encode()),) if says_size else ()
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


def _other_body(response: http.Response, content: bytes) -> http.Response:
    """The same answer, but for its body and what frames and encodes it."""
    changed = response.copy()
    size = ((b"content-length", b"%d" % len(content)),)
    gone = (b"content-length", b"transfer-encoding", b"content-encoding", b"trailer")
    apply_edit(changed.headers, Edit(gone, size))
    changed.data.content = content
    return changed
