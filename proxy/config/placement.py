"""Where faults and metrics are put: the listener must be there, and be of their kind.

This looks at plain data, so that it works beside errors elsewhere in the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from counterfault.proxy.config.document import Document, Json, Problem, Where, dotted
from counterfault.proxy.faults import KNOWN
from counterfault.proxy.values.suggestions import unknown

_ON_TCP = tuple(name for name, kind in KNOWN.items() if kind.tcp)
_NO_REQUESTS = "a tcp listener has connections, not requests"


def schemes_of(sidecar: Json) -> Mapping[str, bool]:
    """The listeners, and whether each is a tcp one."""
    listeners = sidecar.get("listeners") if isinstance(sidecar, dict) else None
    found = {}
    for name, listener in listeners.items() if isinstance(listeners, dict) else ():
        upstream = listener.get("upstream") if isinstance(listener, dict) else None
        urls = upstream if isinstance(upstream, list) else [upstream]
        found[name] = any(isinstance(url, str) and url.startswith("tcp://") for url in urls)
    return found


def misplaced(document: Document, tcp: Mapping[str, bool]) -> Iterator[Problem]:
    """What an experiment puts where it cannot be."""
    faults, metrics = (
        list(_uses(document.data, "faults")),
        list(_uses(document.data, "steady_state")),
    )
    for where, at, _ in (*faults, *metrics):
        if at not in tcp:
            yield document.at_value((*where, "at"), unknown("listener", at, tcp))
    for where, at, rule in faults:
        if tcp.get(at):
            yield from _not_for_connections(document, where, rule)
    for where, at, metric in metrics:
        if tcp.get(at) and "match" in metric:
            yield _at_key(document, where, "match", f"{_NO_REQUESTS}; they cannot be matched")
    yield from _apart(document, tcp, faults, metrics)


def unasked(document: Document, sidecar: Json) -> Iterator[Problem]:
    """Outside metrics without a server to ask."""
    if isinstance(sidecar, dict) and sidecar.get("prometheus"):
        return
    for number, metric in _rules(document.data, "steady_state"):
        if "prometheus" in metric:
            said = "sidecar.yaml has no `prometheus: {url: …}` that could be asked"
            yield document.at_value(("steady_state", number, "prometheus"), said)


type _Use = tuple[Where, str, Mapping[str, Json]]


def _uses(experiment: Json, section: str) -> Iterator[_Use]:
    for number, rule in _rules(experiment, section):
        if isinstance(at := rule.get("at"), str):
            yield (section, number), at, rule


def _rules(experiment: Json, section: str) -> Iterator[tuple[int, Mapping[str, Json]]]:
    rules = experiment.get(section) if isinstance(experiment, dict) else None
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, dict):
            yield number, rule


def _not_for_connections(
    document: Document, where: Where, rule: Mapping[str, Json]
) -> Iterator[Problem]:
    for name in KNOWN:
        if name in rule and name not in _ON_TCP:
            said = f"{_NO_REQUESTS}; it takes {', '.join(_ON_TCP)}"
            yield _at_key(document, where, name, said)
    for key in ("match", "per"):
        if key in rule:
            yield _at_key(document, where, key, f"{_NO_REQUESTS}; there is nothing to match")
    if isinstance(rule.get("dose"), dict):
        yield _at_key(document, where, "dose", "at a tcp listener it must be a share such as 50%")
    truncate = rule.get("truncate")
    if isinstance(truncate, dict) and "share" in truncate:
        said = "a connection has no length to have a share of; say `after`"
        yield _at_key(document, (*where, "truncate"), "share", said)


def _apart(
    document: Document, tcp: Mapping[str, bool], faults: list[_Use], metrics: list[_Use]
) -> Iterator[Problem]:
    """Cohorts of connections and cohorts of users are not the same: nothing would differ."""
    hit = {tcp[at] for _, at, _ in faults if at in tcp}
    for where, at, _ in metrics:
        if at in tcp and hit and tcp[at] not in hit:
            units, others = ("connections", "users") if tcp[at] else ("users", "connections")
            listeners = ", ".join(sorted({a for _, a, _ in faults}))
            said = f"compares {units}, but the faults at {listeners} are for {others}"
            yield document.at_value((*where, "at"), said)


def _at_key(document: Document, where: Where, key: str, said: str) -> Problem:
    """A problem of the key itself, by its whole path."""
    return replace(document.at_key(where, key, said), path=dotted((*where, key)))
