"""Conditions that say which requests a fault or a metric applies to."""

import re
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema

from counterfault.proxy.values.request import Request, first
from counterfault.proxy.values.units import shown

type Matcher = Callable[[Request], bool]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RE2 has neither backreferences nor look-around; Envoy, the other engine, would refuse them.
_NOT_RE2 = re.compile(r"\(\?(?:=|!|<=|<!|>|\(|P=)|\\[1-9]|[*+?}]\+")
_NESTED = re.compile(r"\([^()]*[*+}][^()]*\)[*+{]")


class Strict(BaseModel):
    """The base of all models of the configuration: frozen, without unknown keys or conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OneOrMore:
    """Marks a tuple field for which users may write a single item instead of a list."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


def listed(value: Any) -> Any:
    """Return the items of a list, or a single value, as a tuple."""
    return tuple(value) if isinstance(value, list) else (value,)


def _method(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"must be an HTTP method such as POST, not {shown(value)}")
    return value.upper()


def _path(value: str) -> str:
    if not value.startswith("/") or "?" in value:
        raise ValueError(f"must begin with / and have no query, not {shown(value)}")
    return value


def _regex(value: str) -> str:
    if _NOT_RE2.search(value) or _NESTED.search(value):
        raise ValueError("must be RE2: no look-around, backreference or nested repetition")
    try:
        with warnings.catch_warnings(action="error", category=FutureWarning):
            re.compile(value.encode())
    except (re.error, RecursionError, OverflowError, FutureWarning) as e:
        raise ValueError(f"must be a regular expression: {e}") from e
    return value


def _header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"must be a header name, not {shown(name)}")
    return name.lower()


def _status(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"[1-5]([0-9]{2}|xx)|any", value):
        return value
    raise ValueError(
        f"must be a status such as 503, a class such as 2xx, or any, not {shown(value)}"
    )


Method = Annotated[str, AfterValidator(_method)]
Path = Annotated[str, Field(max_length=2048), AfterValidator(_path)]
Regex = Annotated[str, Field(max_length=1024), AfterValidator(_regex)]
HeaderName = Annotated[str, AfterValidator(_header)]
_STATUS = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": "^([1-5]([0-9]{2}|xx)|any)$"},
    ]
}
Status = Annotated[str, BeforeValidator(_status), WithJsonSchema(_STATUS)]


class Match(Strict):
    """Conditions on a request's head; all of them must hold."""

    method: Annotated[tuple[Method, ...], BeforeValidator(listed), OneOrMore] = Field(
        default=(), description="One method or a list"
    )
    host: Annotated[str | None, Field(description="The Host header without its port")] = None
    path: Annotated[Path | None, Field(description="The whole path, without its query")] = None
    prefix: Annotated[Path | None, Field(description="The path's beginning")] = None
    regex: Annotated[Regex | None, Field(description="RE2 that matches the whole path")] = None
    headers: Annotated[dict[HeaderName, str], Field(description="Exact values")] = {}

    @model_validator(mode="after")
    def _one_path(self) -> "Match":
        given = [name for name in ("path", "prefix", "regex") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"must have one of path, prefix, regex, not {' and '.join(given)}")
        return self

    @cached_property
    def conditions(self) -> tuple[Matcher, ...]:
        """The conditions as functions of a request, cheapest first."""
        found: list[Matcher] = []
        if self.method:
            methods = frozenset(m.encode() for m in self.method)
            found.append(lambda r: r.method in methods)
        if self.path is not None:
            path = self.path.encode()
            found.append(lambda r: r.path == path)
        if self.prefix is not None:
            prefix = self.prefix.encode()
            found.append(lambda r: r.path.startswith(prefix))
        if self.host is not None:
            host = self.host.lower().encode()
            found.append(lambda r: _without_port(r.host) == host)
        if self.regex is not None:
            pattern = re.compile(self.regex.encode())
            found.append(lambda r: pattern.fullmatch(r.path) is not None)
        found.extend(_header_is(name.encode(), v.encode()) for name, v in self.headers.items())
        return tuple(found)

    def matches(self, request: Request) -> bool:
        """Whether all conditions hold."""
        return all(condition(request) for condition in self.conditions)


class ExchangeMatch(Match):
    """Conditions on an exchange: on the request's head, and on the status of the response."""

    status: Annotated[tuple[Status, ...], BeforeValidator(listed), OneOrMore] = Field(
        default=(),
        description="A status (503), a class (2xx), a list of them, or any: even without an answer",
    )

    @property
    def any_status(self) -> bool:
        """Whether `status` names `any`: exchanges match with every status and without one."""
        return "any" in self.status

    def counts(self, status: int | None) -> bool:
        """Whether an exchange with this status is an event of the metric.

        `status` None: the client got no whole response.
        """
        if not self.status or self.any_status:
            return True
        return status is not None and any(
            s == str(status) or (s.endswith("xx") and s[0] == str(status)[0]) for s in self.status
        )


def _header_is(name: bytes, value: bytes) -> Matcher:
    return lambda r: first(r.headers, name) == value


def _without_port(host: bytes) -> bytes:
    bare = host.lower()
    if bare.startswith(b"["):
        return bare.partition(b"]")[0] + b"]"
    return bare.partition(b":")[0]
