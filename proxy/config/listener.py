"""A listener in sidecar.yaml: a port, and where its traffic goes."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

from counterfault.proxy.values.addresses import Listen, Trust, Upstream
from counterfault.proxy.values.matching import OneOrMore, Strict, listed


class Tls(Strict):
    """The certificate that a listener shows its clients."""

    cert: str = Field(description="PEM file with the certificate and its chain")
    key: str = Field(description="PEM file with the private key")


# JSON Schema: the keys that each mode requires and forbids.
_BY_MODE: JsonDict = {
    "if": {"properties": {"mode": {"const": "forward"}}, "required": ["mode"]},
    "then": {"properties": {"upstream": False, "tls": False}},
    "else": {"required": ["upstream"]},
}


class Listener(Strict):
    """A port of the sidecar and where its traffic goes."""

    model_config = ConfigDict(json_schema_extra=_BY_MODE)

    listen: Listen = Field(description="Address and port to listen on")
    mode: Literal["reverse", "forward"] = Field(
        default="reverse", description="forward: an explicit proxy, as HTTP_PROXY and HTTPS_PROXY"
    )
    upstream: Annotated[tuple[Upstream, ...], BeforeValidator(listed), OneOrMore] = Field(
        default=(),
        description="Where requests go; each unit keeps one of them, or the next while it is down",
    )
    trust: Trust | None = Field(
        default=None, description="Peers whose cohort tags are believed at this listener"
    )
    unit: Literal["connection", "client_ip"] = Field(
        default="connection",
        description="What a tcp listener enrolls: connections, or client addresses",
    )
    tls: Tls | None = Field(default=None, description="Serve HTTPS, HTTP/2 included")
    ca: str | None = Field(
        default=None, description="PEM file to verify https upstreams with; unset: the system's"
    )

    @field_validator("upstream")
    @classmethod
    def _one_scheme(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one upstream")
        if len({urlsplit(url).scheme for url in value}) > 1:
            raise ValueError("must have one scheme for all upstreams")
        if len(set(value)) < len(value):
            raise ValueError("must name each upstream once")
        return value

    @model_validator(mode="after")
    def _fits_its_mode(self) -> "Listener":
        if not self.forward and not self.upstream:
            raise ValueError("missing key 'upstream'")
        if self.forward and self.upstream:
            raise ValueError("mode forward has no upstream: each request names its own")
        if self.forward and self.tls is not None:
            raise ValueError("mode forward has no tls: applications speak plainly to their proxy")
        if "unit" in self.model_fields_set and self.scheme != "tcp":
            raise ValueError(
                "`unit` is for tcp listeners; http listeners use the `unit` of sidecar.yaml"
            )
        return self

    @property
    def forward(self) -> bool:
        """Whether it is an explicit proxy, to which clients name the upstream themselves."""
        return self.mode == "forward"

    @property
    def scheme(self) -> str:
        """The scheme of all upstreams: http, https or tcp."""
        return urlsplit(self.upstream[0]).scheme if self.upstream else "http"
