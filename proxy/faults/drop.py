"""`drop`: the exchange ends without a response."""

from typing import Literal, override

from pydantic import Field

from counterfault.proxy.faults.actions import Action, Disconnect, Hang
from counterfault.proxy.faults.base import Fault, Random
from counterfault.proxy.values.request import Request
from counterfault.proxy.values.units import Positive, human


class Drop(Fault, name="drop", scalar="mode"):
    """No answer: the connection is cut, or the client waits in vain."""

    messages = True
    tcp = True
    mode: Literal["close", "hang", "reset"] = Field(
        description="close: FIN; reset: RST; hang: silence. On HTTP/2 close and reset: RST_STREAM"
    )
    hang: Positive = Field(default=60.0, le=3600.0, description="When a hang closes, up to 1h")

    @override
    def act(self, request: Request, random: Random) -> Action:
        if self.mode == "hang":
            return Hang(self.hang)
        return Disconnect(reset=self.mode == "reset")

    @override
    def describe(self) -> str:
        return f"drop {self.mode}" + (f" for {human(self.hang)}" if self.mode == "hang" else "")
