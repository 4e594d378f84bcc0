"""The cohort tag that enrolled requests carry: `x-counterfault` and a W3C baggage member."""

import re
from dataclasses import dataclass

from counterfault.proxy.experiments.cohorts import REPLICATES, Cohort, Enrolment

HEADER = b"x-counterfault"
MEMBER = b"counterfault.tag"
# Bytes. OpenTelemetry drops a larger header as a whole, with the members of the application.
BAGGAGE_LIMIT = 8192

_TAG = re.compile(rb"([a-z0-9-]{1,40})\.(control|experiment)\.(0|[1-9][0-9]?)")

_SIZES = (len(HEADER), len(b"baggage"))

type Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Stripped:
    """Headers without the tag, and the enrolment that a well-formed tag named; None without one."""

    headers: Fields
    tag: Enrolment | None


def parse(value: bytes) -> Enrolment | None:
    """Parse a tag, `<experiment>.<cohort>.<replicate>`. Returns None if it is malformed."""
    found = _TAG.fullmatch(value.strip())
    if found is None or int(found[3]) >= REPLICATES:
        return None
    return Enrolment(found[1].decode(), Cohort(found[2].decode()), int(found[3]))


def text(enrolment: Enrolment) -> bytes:
    """Return the tag of an enrolment: `<experiment>.<cohort>.<replicate>`."""
    return f"{enrolment.experiment}.{enrolment.cohort}.{enrolment.replicate}".encode()


def strip(headers: Fields) -> Stripped:
    """Remove the tag, in every spelling that a server might take for it.

    Of a header and a baggage member, the header counts.
    """
    for name, value in headers:
        if len(name) in _SIZES and _may_carry(name, value):
            return _stripped(headers)
    return Stripped(headers, None)


def _stripped(headers: Fields) -> Stripped:
    kept: list[tuple[bytes, bytes]] = []
    header_tag = member_tag = None
    for name, value in headers:
        spelling = name.lower().replace(b"_", b"-")
        if spelling == HEADER:
            header_tag = header_tag or parse(value)
        elif spelling == b"baggage" and MEMBER in value:
            rest, found = _strip_member(value)
            member_tag = member_tag or found
            if rest:
                kept.append((name, rest))
        else:
            kept.append((name, value))
    return Stripped(tuple(kept), header_tag or member_tag)


def carry(headers: Fields, enrolment: Enrolment) -> Fields:
    """Return the headers with the tag added: as a header, and as the last baggage member.

    The member is left out if the baggage would grow beyond `BAGGAGE_LIMIT` bytes.
    """
    value = text(enrolment)
    member = MEMBER + b"=" + value
    tagged = [*headers, (HEADER, value)]
    places = [i for i, (name, _) in enumerate(tagged) if name.lower() == b"baggage"]
    used = sum(len(tagged[i][1]) + 1 for i in places)
    if used + len(member) > BAGGAGE_LIMIT:
        return tuple(tagged)
    if places:
        name, present = tagged[places[-1]]
        tagged[places[-1]] = (name, present + b"," + member if present.strip() else member)
    else:
        tagged.append((b"baggage", member))
    return tuple(tagged)


def _may_carry(name: bytes, value: bytes) -> bool:
    size = len(name)
    if size == len(HEADER):
        return name.lower().replace(b"_", b"-") == HEADER
    return size == len(b"baggage") and name.lower() == b"baggage" and MEMBER in value


def _strip_member(value: bytes) -> tuple[bytes, Enrolment | None]:
    found = None
    kept = []
    for member in value.split(b","):
        label, _, content = member.partition(b";")[0].partition(b"=")
        if label.strip() == MEMBER:
            found = found or parse(content)
        else:
            kept.append(member)
    return b",".join(kept).strip(), found
