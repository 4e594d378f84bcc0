"""hyper-h2's state of an HTTP/2 connection to an upstream, with an orderly GOAWAY."""

from dataclasses import dataclass
from typing import Any

from h2.errors import ErrorCodes
from h2.events import Event
from hyperframe.frame import GoAwayFrame

from counterfault.addons.mitm.private import BufferedH2Connection, SendH2Data


@dataclass
class GoingAway(Event):
    """The upstream sent GOAWAY without an error: it still serves streams up to this one."""

    last_stream_id: int


class UpstreamH2Connection(BufferedH2Connection):
    """hyper-h2's connection, with mitmproxy's buffers of data that waits for a window."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Event]]:
        # hyper-h2 ends the connection at once. Without an error, GOAWAY only announces that
        # (RFC 9113, section 6.8).
        if frame.error_code != ErrorCodes.NO_ERROR:
            ended: tuple[list[Any], list[Event]] = super()._receive_goaway_frame(frame)
            return ended
        return [], [GoingAway(frame.last_stream_id)]

    def end_stream(self, stream_id: int) -> None:
        """End a stream with the last of its waiting data.

        mitmproxy appends an empty frame, which would wait for a window too.
        """
        waiting = self.stream_buffers.get(stream_id)
        if not waiting or stream_id in self.stream_trailers:
            super().end_stream(stream_id)
        else:
            waiting.append(SendH2Data(waiting.pop().data, True))
