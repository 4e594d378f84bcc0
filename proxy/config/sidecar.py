"""The models of sidecar.yaml but for its listeners: limits, admin port, Prometheus, engine."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from counterfault.proxy.config.listener import Listener
from counterfault.proxy.values.addresses import (
    LOOPBACK,
    HostPort,
    Listen,
    Network,
    Server,
    Trust,
    host_port,
    is_loopback,
)
from counterfault.proxy.values.matching import HeaderName, Path, Strict
from counterfault.proxy.values.units import Name, Positive, Share


class UnitSource(Strict):
    """Where a request carries its user's id: one of header, cookie and baggage."""

    baggage: Annotated[str, Field(min_length=1)] | None = None
    header: HeaderName | None = None
    cookie: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "UnitSource":
        if sum(s is not None for s in (self.baggage, self.header, self.cookie)) != 1:
            raise ValueError("must have one of baggage, header, cookie")
        return self


class AdminSettings(Strict):
    """The supervisor's HTTP port: page, metrics and API."""

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
    """The Prometheus server that holds metrics measured outside the sidecar."""

    url: Server = Field(
        description="Such as http://prometheus:9090, with the path that /api/v1 is below"
    )
    timeout: Positive = Field(default=2.0, le=10.0, description="How long to wait for each answer")
    token_file: str | None = Field(
        default=None, description="File with a bearer token; read again for every query"
    )
    ca: str | None = Field(
        default=None, description="PEM file to verify the server with; unset: the system's"
    )


class Limits(Strict):
    """Bounds of the harm that experiments can do, whatever their files say."""

    enrolled: Share = Field(default=0.10, description="All cohorts of all experiments together")
    active_faults: int = Field(
        default=100, ge=0, description="How many faults may be active at one time"
    )
    lease: Positive = Field(
        default=3.0, ge=0.5, le=60.0, description="Faults end this long after the supervisor has"
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
        default=600.0,
        le=86400.0,
        description="How long a connection may be idle before it is closed",
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
    """Settings that only `engine: envoy` uses."""

    path: str | None = Field(
        default=None,
        description="The Envoy program; unset: the one of counterfault[envoy], else on the PATH",
    )


class Sidecar(Strict):
    """The content of sidecar.yaml."""

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
        default=None, description="The server that `prometheus` metrics are read from"
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
        """Return the peers whose cohort tags are believed at a listener.

        By default these are loopback's, and none at the listener named `inbound`.
        """
        own = self.listeners[listener].trust
        if own is not None:
            return own
        if self.trust is not None:
            return self.trust
        return () if listener == "inbound" else LOOPBACK
