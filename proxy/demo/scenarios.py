"""What the demo shows: the sidecar's configuration, and two experiments with what is foretold."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from counterfault.proxy.analysis.result import Result

SECONDS = 30
"""How long an act's faults may be on; about 700 pages for each cohort."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One experiment of the tour; `tells` says before it what will happen."""

    name: str
    title: str
    tells: str
    foretold: Result
    file: str


SIDECAR = """\
# Written by `counterfault demo`. Users and the shop's own calls come through these ports.
service: storefront
admin: {{listen: "127.0.0.1:{admin}"}}
unit:
  - header: x-user-id
listeners:
  inbound: {{listen: "127.0.0.1:{inbound}", upstream: "http://127.0.0.1:{storefront}"}}
  catalog: {{listen: "127.0.0.1:{to_catalog}", upstream: "http://127.0.0.1:{catalog}"}}
  recommendations:
    {{listen: "127.0.0.1:{to_recommendations}", upstream: "http://127.0.0.1:{recommendations}"}}
  payments: {{listen: "127.0.0.1:{to_payments}", upstream: "http://127.0.0.1:{payments}"}}
limits: {{enrolled: 60%, drain: 2s}}
state_dir: {state}
"""

_SLOW = f"""\
experiment: slow-recommendations
hypothesis: Shoppers do not notice that recommendations are slow
state: running
baseline: 4s
duration: {SECONDS}s
recovery: 2s
cohorts: {{experiment: 30%, control: 30%}}
faults:
  - at: recommendations
    latency: 2s
steady_state:
  - {{name: pages, at: inbound, success_rate: {{drop: 2pp}}}}
  - {{name: speed, at: inbound, slow: {{over: 1s, rise: 3pp}}}}
"""

_FAILING = f"""\
experiment: failing-payments
hypothesis: Shoppers can check out although payments fail
state: running
baseline: 4s
duration: {SECONDS}s
recovery: 2s
cohorts: {{experiment: 30%, control: 30%}}
faults:
  - at: payments
    match: {{method: POST, path: /charge}}
    error: 503
steady_state:
  - {{name: checkout, at: inbound, match: {{path: /checkout}}, success_rate: {{drop: 1pp}}}}
"""

SCENARIOS = (
    Scenario(
        "slow-recommendations",
        "Act 1 of 2: a fault that users should not notice",
        "For 3 users in 10 (the experiment) recommendations now come 2 s late; 3 in 10 others"
        " (the control) are left alone, to compare with. Foretold: the hypothesis is held,"
        " because the shop waits 100 ms at most and then shows its bestsellers.",
        Result.HELD,
        _SLOW,
    ),
    Scenario(
        "failing-payments",
        "Act 2 of 2: a fault that hurts",
        "For 3 other users in 10 the payment service now fails. Foretold: the hypothesis is"
        " refuted, because the shop has nothing to fall back on: their checkouts fail, and"
        " no others do. The run is stopped as soon as that is beyond doubt.",
        Result.REFUTED,
        _FAILING,
    ),
)


def sidecar(ports: Mapping[str, int], state: str) -> str:
    """Return the content of sidecar.yaml for these ports."""
    return SIDECAR.format(state=json.dumps(state), **ports)


def paused(file: str) -> str:
    """Return the file of an experiment that is over, so that its users are free for the next."""
    return file.replace("state: running", "state: paused")
