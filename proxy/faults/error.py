"""`error`: an answer in the upstream's place."""

from typing import Annotated

from pydantic import AfterValidator, Field

from proxy.actions import Action, Respond
from proxy.faults.base import Fault, Random
from proxy.http import Request
from proxy.match import HeaderName

# These frame the message; a wrong one would break the connection instead of the request.
_FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer")


def _name(value: str) -> str:
    if value in _FRAMING:
        raise ValueError(f"must not be a framing header ({', '.join(_FRAMING)})")
    return value


def _value(value: str) -> str:
    if any(c in value for c in "\r\n\0") or not value.isascii():
        raise ValueError("must be ASCII without line breaks")
    return value


class Error(Fault, name="error", scalar="status"):
    """Answer with a status of the user's choice."""

    status: int = Field(ge=200, le=599, description="The HTTP status, 200 to 599")
    body: str = Field(default="", max_length=65536, description="Up to 64 KiB of text")
    headers: dict[
        Annotated[HeaderName, AfterValidator(_name)], Annotated[str, AfterValidator(_value)]
    ] = Field(default={}, description="Headers of the answer; content-type is text/plain if unset")

    def act(self, request: Request, random: Random) -> Action:
        named = {"content-type": "text/plain; charset=utf-8", **self.headers}
        fields = tuple((name.encode(), value.encode()) for name, value in named.items())
        return Respond(self.status, fields, self.body.encode())

    def describe(self) -> str:
        said = [f"error {self.status}", *(f"{name}: {v}" for name, v in self.headers.items())]
        return ", ".join([*said, f"a body of {len(self.body)} characters"] if self.body else said)
