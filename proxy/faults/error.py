"""`error`: a response in the upstream's place, with a status or a gRPC code."""

from typing import Annotated, Any, override
from urllib.parse import quote

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from counterfault.proxy.faults.actions import Action, Respond
from counterfault.proxy.faults.base import Fault, Random, named_file
from counterfault.proxy.faults.fields import MOST_FIELDS, FieldName, FieldValue
from counterfault.proxy.values.request import Request, first
from counterfault.proxy.values.units import shown

_MOST = 65536
_GRPC = b"application/grpc"
# The number and the HTTP status of each gRPC code, from google/rpc/code.proto.
CODES = {
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}
_NAMES = {number: name for name, (number, _) in CODES.items()}


def _code(value: Any) -> str:
    name = _NAMES.get(value) if type(value) is int else value
    if not isinstance(name, str) or name not in CODES:
        raise ValueError(f"must be one of {', '.join(CODES)}, or 1 to 16, not {shown(value)}")
    return name


_SCHEMA = {"anyOf": [{"enum": list(CODES)}, {"type": "integer", "minimum": 1, "maximum": 16}]}
Code = Annotated[str, BeforeValidator(_code), WithJsonSchema(_SCHEMA)]


def _content(value: Any, info: ValidationInfo) -> tuple[str, bytes]:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a file's name, not {shown(value)}")
    return value, named_file(value, info, _MOST)


BodyFile = Annotated[
    tuple[str, bytes], BeforeValidator(_content), WithJsonSchema({"type": "string"})
]


class Error(Fault, name="error", scalar="status"):
    """A status of one's choice, or a gRPC code, instead of the upstream's answer."""

    status: int | None = Field(
        default=None, ge=200, le=599, description="The HTTP status, 200 to 599"
    )
    body: str = Field(default="", max_length=_MOST, description="Up to 64 KiB of text")
    body_file: BodyFile | None = Field(
        default=None, description="A file of up to 64 KiB, beside the experiment's"
    )
    headers: dict[FieldName, FieldValue] = Field(
        default={},
        max_length=MOST_FIELDS,
        description="Headers of the answer, up to 50; content-type is text/plain if unset",
    )
    grpc: Code | None = Field(
        default=None,
        description="What gRPC requests get; others get `status`, or the code's own HTTP status",
    )
    message: str = Field(
        default="", max_length=1024, description="Up to 1024 characters; with grpc"
    )

    @model_validator(mode="after")
    def _whole(self) -> "Error":
        if self.status is None and self.grpc is None:
            raise ValueError("must have status, grpc or both")
        if self.message and self.grpc is None:
            raise ValueError("must have grpc with message")
        if self.body and self.body_file is not None:
            raise ValueError("must have one of body and body_file")
        return self

    @override
    def act(self, request: Request, random: Random) -> Action:
        said = first(request.headers, b"content-type") or b""
        if self.grpc is not None and said.lower().startswith(_GRPC):
            return self._trailers_only(said, CODES[self.grpc][0])
        named = {"content-type": "text/plain; charset=utf-8", **self.headers}
        status = self.status or CODES[self.grpc or "UNKNOWN"][1]
        return Respond(status, _fields(named), self._body)

    @property
    def _body(self) -> bytes:
        if self.body_file is not None:
            return self.body_file[1]
        return (self.body or self.message).encode()

    def _trailers_only(self, content_type: bytes, code: int) -> Respond:
        """A response that is a head only (gRPC over HTTP/2: `Trailers-Only`)."""
        status = ((b"content-type", content_type), (b"grpc-status", b"%d" % code))
        # Percent-encoded: all but printable ASCII, and the % itself.
        message = quote(self.message, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode()
        said = ((b"grpc-message", message),) if message else ()
        own = {n: v for n, v in self.headers.items() if n != "content-type"}
        return Respond(200, status + said + _fields(own), b"")

    @override
    def describe(self) -> str:
        said = [f"error {self.status}" if self.status else f"error grpc {self.grpc}"]
        if self.status and self.grpc:
            said.append(f"grpc {self.grpc}")
        said += [f"{name}: {v}" for name, v in self.headers.items()]
        if self.body_file is not None:
            said.append(f"the body in {self.body_file[0]}")
        elif self.body:
            said.append(f"a body of {len(self.body)} characters")
        return ", ".join(said)


def _fields(headers: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode(), value.encode()) for name, value in headers.items())
