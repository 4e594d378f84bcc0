"""The plan that a data plane executes: an immutable snapshot of configuration and runs.

A plan assigns units to experiments, draws their faults, and says which metrics an exchange counts
for. It is replaced as a whole by the next one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from counterfault.proxy.config.sidecar import Sidecar, UnitSource
from counterfault.proxy.engines.upstream_ring import ByteRing
from counterfault.proxy.experiments.cohorts import Cohort, Enrolment, first_enrolment, user
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.experiments.lifecycle import LIVE, Epoch, State
from counterfault.proxy.experiments.run_status import RunStatus
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.faults import Random
from counterfault.proxy.faults.actions import Action, Hang
from counterfault.proxy.faults.dose import Limit
from counterfault.proxy.measurement.exchanges import Measured
from counterfault.proxy.measurement.keys import KeptEpochs
from counterfault.proxy.values.addresses import Network
from counterfault.proxy.values.request import Headers, Request, baggage, cookie, first

# How many units are cached; a worker sees the same users again and again.
UNITS = 65536

type Find = Callable[[Headers, bytes], bytes | None]
type Source = tuple[Find, bytes]

FINDERS: dict[str, Find] = {"baggage": baggage, "header": first, "cookie": cookie}


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault that was drawn for one request or message."""

    experiment: str
    epoch: Epoch
    rule: int
    fault: str
    action: Action
    most: int | None
    """The `guard.max_faults` of its experiment; None: no bound."""
    limit: Limit | None = None
    """The bound of a counted dose, over all workers; None for a share."""


@dataclass(frozen=True, slots=True)
class EachMessage:
    """A rule whose faults are drawn for each message of a WebSocket, or piece of raw data."""

    arm: "Arm"
    number: int
    rule: FaultRule
    request: Request

    @property
    def loses(self) -> bool:
        """Whether the fault may lose messages."""
        return isinstance(self.rule.fault.act(self.request, lambda: 0.0), Hang)

    def draw(self, random: Random) -> Injection | None:
        """Draw the fault of one message; None if the dose spares it."""
        if self.rule.dose.share < 1 and random() >= self.rule.dose.share:
            return None
        return self.arm.injection(self.number, self.rule, self.request, random)


@dataclass(frozen=True, slots=True)
class Decision:
    """The faults of one request, in the order of their rules: before and after the upstream."""

    before: tuple[Injection, ...] = ()
    after: tuple[Injection, ...] = ()


NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class Arm:
    """An experiment at one listener: the rules and metrics that are placed there."""

    name: str
    state: State
    epoch: Epoch
    rules: tuple[tuple[int, FaultRule], ...]
    metrics: tuple[Metric, ...]
    most_faults: int | None

    def hits(self, enrolment: Enrolment) -> bool:
        """Whether a unit with this enrolment gets faults in the run's present state."""
        return enrolment.cohort is Cohort.EXPERIMENT and self.state is State.RUNNING

    def decide(self, request: Request, random: Random) -> Decision:
        """Draw the faults of a request, except for rules that draw for each message."""
        drawn: dict[str, list[Injection]] = {"before": [], "after": []}
        for number, rule in self._matching(request):
            if rule.per == "message":
                continue
            if rule.dose.share == 1 or random() < rule.dose.share:
                drawn[rule.when].append(self.injection(number, rule, request, random))
        return Decision(tuple(drawn["before"]), tuple(drawn["after"]))

    def messages(self, request: Request) -> tuple["EachMessage", ...]:
        """Return the rules that draw for each message of a WebSocket that this request opens."""
        matching = self._matching(request)
        return tuple(EachMessage(self, n, r, request) for n, r in matching if r.per == "message")

    def _matching(self, request: Request) -> Iterator[tuple[int, FaultRule]]:
        method = request.method.decode("latin-1")
        for number, rule in self.rules:
            if rule.match.matches(request) and not rule.spares(method):
                yield number, rule

    def injection(
        self, number: int, rule: FaultRule, request: Request, random: Random
    ) -> Injection:
        """Return the fault of a rule, by its index, for a request."""
        action, limit = rule.fault.act(request, random), rule.dose.limit
        most = self.most_faults
        return Injection(self.name, self.epoch, number, rule.fault.name, action, most, limit)

    def measured(self, request: Request) -> tuple[Measured, ...]:
        """Return the metrics whose match holds for a request."""
        return tuple(Measured(m, self.epoch) for m in self.metrics if m.match.matches(request))


@dataclass(frozen=True, slots=True)
class Route:
    """The routing of one listener: its upstreams, and the experiments at it."""

    name: str
    scheme: str
    upstreams: tuple[str, ...]
    trusted: tuple[Network, ...]
    arms: Mapping[str, Arm]
    ring: ByteRing = field(compare=False)
    forward: bool = False
    """Whether requests name their upstreams themselves (a forward proxy)."""
    hosts: frozenset[str] = frozenset()
    """The hosts whose TLS a forward proxy intercepts, in lower case."""
    by_address: bool = False
    """Whether the unit of a raw connection is the client's address, not the connection itself."""

    def nodes(self, unit: bytes) -> tuple[str, ...]:
        """Return the upstreams in the order in which requests of this unit try them."""
        if len(self.upstreams) == 1:
            return self.upstreams
        return tuple(self.ring.iterate_nodes(unit))


class Plan:
    """What to do with each request, until the next plan.

    Not for use by several threads: units are cached.
    """

    def __init__(
        self,
        sidecar: Sidecar,
        experiments: tuple[Experiment, ...],
        runs: Mapping[str, RunStatus],
    ) -> None:
        self.limits = sidecar.limits
        self.known = frozenset(e.name for e in experiments)
        live = [e for e in experiments if e.name in runs and runs[e.name].state in LIVE]
        self.enrolling = frozenset(e.name for e in live)
        self.routes = {name: _route(sidecar, name, live, runs) for name in sidecar.listeners}
        self.kept_epochs = KeptEpochs((e.name, runs[e.name].epoch) for e in live)
        self._revisions = {e.name: runs[e.name].epoch.revision for e in live}
        self._salts = {e.name: e.salt for e in live}
        self._sources = tuple(_source(s) for s in sidecar.unit)
        self._protected = frozenset(path.encode() for path in sidecar.protect)
        self._enrolment_of = lru_cache(UNITS)(first_enrolment(tuple(e.arcs for e in live)))
        self._recognised = lru_cache(UNITS)(self._recognise)

    def unit(self, request: Request) -> bytes | None:
        """Return the id of the request's user, from the first source that has one, or None."""
        for find, name in self._sources:
            value = find(request.headers, name)
            if value:
                return value
        return None

    def assign(
        self, request: Request, unit: bytes | None, tag: Enrolment | None
    ) -> Enrolment | None:
        """Return the enrolment of a request; None for a bystander.

        Args:
            request: The head of the request.
            unit: The id of its user, see `unit`.
            tag: The enrolment that a trusted peer has tagged it with.
        """
        if not self.enrolling or request.path in self._protected:
            return None
        if tag is not None:
            if tag.experiment not in self.enrolling:
                return None
            return tag if unit is None else self._recognised(tag, unit)
        return None if unit is None else self._enrolment_of(unit)

    def _recognise(self, tag: Enrolment, unit: bytes) -> Enrolment:
        return replace(tag, user=user(self._salts[tag.experiment], unit))

    def decide(
        self, listener: str, request: Request, enrolment: Enrolment, random: Random
    ) -> Decision:
        """Draw the faults of a request: only the experiment cohort of a running run gets any."""
        arm = self.routes[listener].arms.get(enrolment.experiment)
        if arm is None or not arm.hits(enrolment):
            return NOTHING
        return arm.decide(request, random)

    def messages(
        self, listener: str, request: Request, enrolment: Enrolment
    ) -> tuple[EachMessage, ...]:
        """Return the rules that draw for each message of a WebSocket, while faults are on."""
        arm = self.routes[listener].arms.get(enrolment.experiment)
        return () if arm is None or not arm.hits(enrolment) else arm.messages(request)

    def loses(self, listener: str, request: Request, enrolment: Enrolment) -> bool:
        """Whether messages of a WebSocket may be lost while it is open.

        The answer is the same for both cohorts, so that they do not differ before the fault.
        """
        arm = self.routes[listener].arms.get(enrolment.experiment)
        return arm is not None and any(each.loses for each in arm.messages(request))

    def measured(
        self, listener: str, request: Request, enrolment: Enrolment
    ) -> tuple[Measured, ...]:
        """Return the steady-state metrics that the exchange of this request counts for."""
        arm = self.routes[listener].arms.get(enrolment.experiment)
        return () if arm is None else arm.measured(request)

    def epoch_at(self, listener: str, experiment: str) -> Epoch | None:
        """The epoch of an experiment's run; None if nothing of it is placed at this listener."""
        arm = self.routes[listener].arms.get(experiment) if listener in self.routes else None
        return None if arm is None else arm.epoch

    def revision_of(self, enrolment: Enrolment) -> str:
        """The revision of the run that an enrolment of this plan belongs to."""
        return self._revisions[enrolment.experiment]

    def injects(self, experiment: str, epoch: Epoch) -> bool:
        """Whether faults drawn in this epoch may still be performed."""
        return self.kept_epochs.has_epoch(experiment, epoch)


def _source(source: UnitSource) -> Source:
    for kind, find in FINDERS.items():
        name = getattr(source, kind)
        if name is not None:
            return find, name.encode()
    raise ValueError("a unit source without a kind")  # UnitSource refuses it


def _route(
    sidecar: Sidecar, name: str, live: list[Experiment], runs: Mapping[str, RunStatus]
) -> Route:
    listener = sidecar.listeners[name]
    arms = {}
    for e in live:
        rules = tuple((i, r) for i, r in enumerate(e.faults) if r.at == name)
        metrics = tuple(m for m in e.steady_state if m.at == name)
        if rules or metrics:
            run = runs[e.name]
            arms[e.name] = Arm(e.name, run.state, run.epoch, rules, metrics, e.guard.max_faults)
    trusted, ring = sidecar.trusted(name), ByteRing(list(listener.upstream))
    hosts = _hosts(arms.values()) if listener.forward else frozenset()
    urls, scheme = listener.upstream, listener.scheme
    by_address = listener.unit == "client_ip"
    return Route(name, scheme, urls, trusted, arms, ring, listener.forward, hosts, by_address)


def _hosts(arms: Iterable[Arm]) -> frozenset[str]:
    """Return the hosts that faults or metrics of these experiments name, in lower case."""
    named = {metric.match.host for arm in arms for metric in arm.metrics}
    named |= {rule.match.host for arm in arms for _, rule in arm.rules}
    return frozenset(host.lower() for host in named if host)
