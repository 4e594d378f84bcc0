"""The sidecar's own settings: sidecar.yaml."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from counterfault.proxy.values.addresses import (
    LOOPBACK,
    HostPort,
    Listen,
    Network,
    Server,
    Trust,
    Upstream,
    host_port,
    is_loopback,
)
from counterfault.proxy.values.matching import HeaderName, OneOrMore, Path, Strict, listed
from counterfault.proxy.values.units import Name, Positive, Share


class Tls(Strict):
    """The certificate a listener shows its clients."""

    cert: str = Field(description="PEM file with the certificate and its chain")
    key: str = Field(description="PEM file with the private key")


# What a listener's mode requires and forbids, for editors.
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
        description="Where to; a list is sticky by unit, the next node when one is down",
    )
    trust: Trust | None = Field(
        default=None, description="Peers whose cohort tags are believed at this listener"
    )
    unit: Literal["connection", "client_ip"] = Field(
        default="connection", description="Of a tcp listener: what is enrolled"
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
            raise ValueError("`unit` is for tcp listeners; users of http ones are found by theirs")
        return self

    @property
    def forward(self) -> bool:
        """Whether it is an explicit proxy."""
        return self.mode == "forward"

    @property
    def scheme(self) -> str:
        return urlsplit(self.upstream[0]).scheme if self.upstream else "http"


class UnitSource(Strict):
    """Where a user's id is found; one of header, cookie and baggage."""

    baggage: Annotated[str, Field(min_length=1)] | None = None
    header: HeaderName | None = None
    cookie: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "UnitSource":
        if sum(s is not None for s in (self.baggage, self.header, self.cookie)) != 1:
            raise ValueError("must have one of baggage, header, cookie")
        return self


class AdminSettings(Strict):
    """The supervisor's own port: page, metrics and API."""

    listen: Listen = "127.0.0.1:9900"
    token_file: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="File with the token (16 bytes or more) that all but /metrics, /healthz and "
        "/readyz ask for; required off loopback",
    )
    metrics: Listen | None = Field(
        default=None, description="Another address that has /metrics, /healthz and /readyz alone"
    )

    @model_validator(mode="after")
    def _guarded(self) -> "AdminSettings":
        host, _ = host_port(self.listen)
        if self.token_file is None and not is_loopback(host):
            raise ValueError(
                f"at {host} anybody could stop experiments: set token_file, or listen on loopback "
                "(`metrics` can serve probes and Prometheus elsewhere)"
            )
        if self.metrics == self.listen and host_port(self.listen)[1]:
            raise ValueError(f"listen and metrics are both {self.listen}")
        return self


class PrometheusServer(Strict):
    """Where metrics are asked for that somebody else measures."""

    url: Server = Field(
        description="Such as http://prometheus:9090, with the path that /api/v1 is below"
    )
    timeout: Positive = Field(default=2.0, le=10.0, description="How long to wait for an answer")
    token_file: str | None = Field(
        default=None, description="File with a bearer token; read again for every question"
    )
    ca: str | None = Field(
        default=None, description="PEM file to verify the server with; unset: the system's"
    )


class Limits(Strict):
    """How much harm there may be at any time, whatever the experiments say."""

    enrolled: Share = Field(default=0.10, description="All cohorts of all experiments together")
    active_faults: int = Field(default=100, ge=0, description="Faults under way at one time")
    lease: Positive = Field(
        default=3.0, ge=0.5, le=60.0, description="Faults end this long after the supervisor"
    )
    drain: Positive = Field(
        default=30.0, le=3600.0, description="How long SIGTERM waits for requests under way"
    )
    orphans: Positive | None = Field(
        default=None, description="How long workers serve on without a supervisor; unset: no bound"
    )
    connections: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Clients' connections, over all workers"
    )
    idle: Positive = Field(
        default=600.0, le=86400.0, description="When a connection on which nothing moves is closed"
    )
    head_time: Positive = Field(
        default=10.0, le=600.0, description="How long a request's head may take to arrive"
    )
    head_bytes: int = Field(
        default=65536, ge=1024, le=1 << 20, description="How large a request's head may be"
    )
    head_count: int = Field(
        default=200, ge=10, le=10_000, description="How many headers a request may have"
    )
    connect: Positive = Field(
        default=5.0, le=300.0, description="How long to try to connect to an upstream"
    )


class EnvoySettings(Strict):
    """For `engine: envoy`."""

    path: str | None = Field(
        default=None, description="The program; unset: counterfault[envoy]'s, else the PATH's"
    )


class Sidecar(Strict):
    """sidecar.yaml."""

    service: Name = Field(description="A label on every series")
    engine: Literal["mitmproxy", "envoy"] = Field(
        default="mitmproxy", description="Which data plane carries the traffic"
    )
    envoy: EnvoySettings = EnvoySettings()
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes on each port")
    admin: AdminSettings = AdminSettings()
    unit: tuple[UnitSource, ...] = Field(
        default=(UnitSource(header="x-user-id"),),
        min_length=1,
        strict=False,
        description="Where a user's id is found; the first one present wins",
    )
    listeners: dict[Name, Listener] = Field(min_length=1)
    trust: Trust | None = Field(
        default=None, description="Peers whose cohort tags are believed at every listener"
    )
    forward_ca: str | None = Field(
        default=None,
        description="PEM file, certificate and key, that signs for hosts at forward listeners; "
        "unset: one is made under state_dir",
    )
    prometheus: PrometheusServer | None = Field(
        default=None, description="The server that outside metrics are read from"
    )
    limits: Limits = Limits()
    protect: Annotated[tuple[Path, ...], Field(strict=False)] = Field(
        default=("/healthz", "/livez", "/readyz", "/metrics"),
        description="Paths that are never enrolled and never faulted",
    )
    state_dir: str | None = Field(
        default=None, description="Unset: $STATE_DIRECTORY, else the XDG state home"
    )

    @field_validator("listeners")
    @classmethod
    def _ports_differ(cls, value: dict[str, Listener]) -> dict[str, Listener]:
        seen: dict[HostPort, str] = {}
        for name, listener in value.items():
            address = host_port(listener.listen)
            if address[1] and address in seen:
                raise ValueError(f"{name} and {seen[address]} both listen on {listener.listen}")
            seen[address] = name
        return value

    def trusted(self, listener: str) -> tuple[Network, ...]:
        """The peers whose tags are believed at a listener."""
        own = self.listeners[listener].trust
        if own is not None:
            return own
        if self.trust is not None:
            return self.trust
        return () if listener == "inbound" else LOOPBACK
