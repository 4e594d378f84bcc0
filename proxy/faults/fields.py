"""Header fields that a fault may write."""

from typing import Annotated

from pydantic import AfterValidator, Field

from counterfault.proxy.values.matching import HeaderName

# Headers that frame the message; a wrong one would break the connection, not just the request.
FRAMING = (
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "trailer",
    "te",
    "expect",
    "host",
)
MOST_FIELDS = 50
_LONGEST_NAME = 256
# Headers that carry the cohort tag.
OURS = ("x-counterfault", "baggage")


def _name(value: str) -> str:
    if len(value) > _LONGEST_NAME:
        raise ValueError(f"must be at most {_LONGEST_NAME} characters long")
    if value in FRAMING:
        raise ValueError(f"must not be a framing header ({', '.join(FRAMING)})")
    if value.replace("_", "-") in OURS:
        raise ValueError(f"must not be a header with the cohort's tag ({', '.join(OURS)})")
    return value


def _value(value: str) -> str:
    if any(c in value for c in "\r\n\0") or not value.isascii():
        raise ValueError("must be ASCII without line breaks")
    return value


FieldName = Annotated[HeaderName, AfterValidator(_name)]
FieldValue = Annotated[str, Field(max_length=8192), AfterValidator(_value)]
