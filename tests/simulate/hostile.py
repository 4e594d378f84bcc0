"""All cells of adversarial traffic: where a verdict is most easily wrong."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from counterfault.proxy.experiments.steady_state import Metric
from tests.simulate.adversity import Adversity
from tests.simulate.conditions import (
    Conditions,
    Harm,
    Incidents,
    Latencies,
    Load,
    Queue,
    Retries,
    Users,
)
from tests.simulate.scenarios import ALPHA, ERRORS, metric

_TOLERANCE = 0.005
_BOUNDARY = {"refuted": ALPHA, "held": ALPHA}
"""The effect is exactly the tolerance, so that neither may be said."""
_HARM = {"held": ALPHA}
_NEVER_HELD = {"held": 0.0}
_NO_EFFECT = {"refuted": ALPHA}
_NOT_ENDED = {"refuted": ALPHA, "ended": 0.1}
"""There is no effect at all, and nothing that should end a run as not comparable."""

USERS = (20, 50, 200, 600, 1000, 2000, 20_000)


RATE = metric(rate={"drop": "5%"})
SLOW = metric(slow={"over": "300ms", "rise": "2pp"})


def quantile(q: float, rise: str) -> Metric:
    return metric(latency={"quantile": q, "rise": rise})


def _load(users: int) -> Load:
    return Load(200 if users >= 2000 else 50)


def _few_users() -> Iterator[Adversity]:
    for users in USERS:
        for icc in (0.0, 0.1):
            alike = "alike" if icc else "independent"
            usual = Conditions(Users(users, icc), _load(users), harm=Harm(errors=_TOLERANCE))
            name = f"{users:,} users, {alike}"
            yield Adversity("few users, at the tolerance", name, ERRORS, usual, _BOUNDARY)
        none = replace(usual, harm=Harm())
        yield Adversity("few users, no effect", f"{users:,} users, alike", ERRORS, none, _NO_EFFECT)


def _concentrated() -> Iterator[Adversity]:
    group = "few users are hit, at the tolerance"
    for share, errors, text in ((0.005, 1.0, "0.5 % always"), (0.01, 0.5, "1 % half of the time")):
        # Of a hit user's requests one in a thousand fails anyway, to which the fault adds nothing.
        harm = Harm(hit=share / (1 - 0.001), hit_errors=errors)
        for users in USERS:
            for icc in (0.0, 0.05):
                name = f"{text}, {users:,} users, {'alike' if icc else 'independent'}"
                usual = Conditions(Users(users, icc), _load(users), errors=0.001, harm=harm)
                yield Adversity(group, name, ERRORS, usual, _BOUNDARY)
    for share in (0.02, 0.5):
        usual = Conditions(Users(2000), _load(2000), errors=0.001, harm=Harm(hit=share))
        name = f"{100 * share:g} % of 2,000 users always fail"
        yield Adversity("an outage is found", name, ERRORS, usual, _HARM)
    for errors, icc in ((0.001, 0.0), (0.01, 0.05)):
        usual = Conditions(Users(2000, icc), _load(2000), errors=errors)
        name = f"2,000 users, {100 * errors:g} % fail, {'alike' if icc else 'independent'}"
        yield Adversity("no effect is found", name, ERRORS, usual, _NO_EFFECT)


def _shapes() -> Iterator[Adversity]:
    """Unequal users, unsteady load, and what befalls both cohorts."""
    alike = Users(2000, icc=0.1)
    shapes = {
        "Pareto 1.2, 200 users": Conditions(Users(200, pareto=1.2)),
        "Pareto 1.2, 2,000 users": Conditions(Users(2000, pareto=1.2)),
        "a bot with 20 %, 200 users": Conditions(Users(200, icc=0.05, bot=0.2)),
        "a bot with 20 %, 2,000 users": Conditions(Users(2000, icc=0.05, bot=0.2)),
        "Pareto 1.2 and a bot, 2,000 users": Conditions(Users(2000, 0.05, pareto=1.2, bot=0.2)),
        "bursts ×8": Conditions(alike, Load(burst=8)),
        "ramp ×20": Conditions(alike, Load(ramp=20)),
        "bursts ×8, ramp ×20": Conditions(alike, Load(burst=8, ramp=20)),
        "incidents": Conditions(alike, incidents=Incidents()),
        "drift ×4": Conditions(alike, drift=4),
        "3 retries of 80 %": Conditions(Users(500), retries=Retries()),
    }
    for name, usual in shapes.items():
        worse = replace(usual, harm=Harm(errors=_TOLERANCE))
        yield Adversity("uneven, at the tolerance", name, ERRORS, worse, _BOUNDARY)
        yield Adversity("uneven, no effect", name, ERRORS, usual, _NOT_ENDED)


def _late() -> Iterator[Adversity]:
    """Requests that end long after they began."""
    for timeout in (5, 10, 30):
        harm = Harm(timeouts=0.03, timeout=timeout)
        usual = Conditions(Users(5000), Load(200), errors=0.005, harm=harm, seconds=60)
        name = f"3 % fail after {timeout} s"
        yield Adversity("time-outs", name, ERRORS, usual, _HARM)
    for per_second in (20, 50, 200):
        for delay in (0.0, 0.3, 2.0, 5.0):
            usual = Conditions(
                Users(5000), Load(per_second), harm=Harm(delay=delay), seconds=120, errors=0.005
            )
            name = f"all {delay:g} s slower, {per_second} requests a second"
            yield Adversity("a rate in spite of latency", name, RATE, usual, _NO_EFFECT)
    fewer = Conditions(Users(5000), Load(200), harm=Harm(fewer=0.05))
    yield Adversity("a rate, at the tolerance", "5 % fewer requests", RATE, fewer, _BOUNDARY)


def _narrow() -> Iterator[Adversity]:
    for percent in (10, 15, 20):
        p50 = quantile(0.5, f"{percent}%")
        for sigma in (0.005, 0.02, 0.05, 0.1):
            for times, wrong in ((1.0, _BOUNDARY), (1.5, _NEVER_HELD), (0.0, _NO_EFFECT)):
                usual = Conditions(
                    Users(20_000),
                    Load(200),
                    latencies=Latencies(sigma=sigma, anywhere=True),
                    harm=Harm(slower=1 + percent / 100 * times),
                    seconds=100,
                    baseline=20,
                )
                group = f"narrow latencies, {times:g} × the tolerance"
                yield Adversity(group, f"{percent}%, sigma {sigma:g}", p50, usual, wrong)


def _bimodal() -> Iterator[Adversity]:
    for share, q in ((0.5, 0.5), (0.5, 0.99), (0.01, 0.5), (0.01, 0.99), (0.03, 0.5), (0.03, 0.99)):
        usual = Conditions(
            Users(20_000),
            Load(80),
            latencies=Latencies(sigma=0.3, slow_share=share),
            harm=Harm(slower=1.2),
            seconds=100,
        )
        name = f"p{100 * q:g} 20%, {100 * share:g} % at 1 s"
        group = "bimodal latencies, at the tolerance"
        yield Adversity(group, name, quantile(q, "20%"), usual, _BOUNDARY)


def _failures() -> Iterator[Adversity]:
    """Failures that a metric of latencies may take for quick answers."""
    usual = Conditions(Users(5000), latencies=Latencies(), seconds=60)
    for share in (0.6, 1.0):
        harm = replace(usual, harm=Harm(resets=share))
        name = f"p50 40%, {100 * share:g} % reset"
        group = "failures have no latency"
        yield Adversity(group, name, quantile(0.5, "40%"), harm, _NEVER_HELD)
    gone = replace(usual, gives_up=1.0, harm=Harm(slower=20))
    name = "p99 20%, clients give up after 1 s"
    slow = replace(gone, latencies=Latencies(median=0.3))
    yield Adversity("failures have no latency", name, quantile(0.99, "20%"), slow, _NEVER_HELD)


def _shared_queue() -> Iterator[Adversity]:
    """The calls of one cohort slow down both, which a comparison of cohorts cannot see.

    Measured with these queues, control after the faults began against control before: p50 × 1.44
    with 2 calls a request, × 1.89 with 2.5; p99 × 1.10 and × 1.33; over 300 ms 1.2 points more
    with 2.5 calls, 15 with 3. Where that is beyond the tolerance nothing holds.
    """
    p50, p99 = quantile(0.5, "20%"), quantile(0.99, "20%")
    kinds = ((p50, "p50 20%", 2.0), (p99, "p99 20%", 2.5), (SLOW, "slow 2pp", 3.0))
    for measured, name, harmful in kinds:
        for calls in (0.0, 1.5, 2.0, 2.5, 3.0):
            usual = Conditions(Users(2000), queue=Queue(calls), baseline=60, seconds=120)
            wrong = _HARM if calls >= harmful else _NO_EFFECT if calls else _NOT_ENDED
            text = f"{name}, {calls:g} background calls"
            yield Adversity("a queue that cohorts share", text, measured, usual, wrong)


def _by_group(cells: Iterable[Adversity]) -> tuple[Adversity, ...]:
    """The cells of each group together, groups in the order of their first cells."""
    found: dict[str, list[Adversity]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return tuple(cell for group in found.values() for cell in group)


HOSTILE = _by_group(
    chain(
        _few_users(),
        _concentrated(),
        _shapes(),
        _late(),
        _narrow(),
        _bimodal(),
        _failures(),
        _shared_queue(),
    )
)
