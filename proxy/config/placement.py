"""Checks where faults and metrics are placed: the listener must exist and be of a fitting kind.

The checks look at plain data, not at models, so that they work beside mistakes elsewhere in a file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from counterfault.proxy.config.document import Document, Json, KeyPath, Problem, dotted
from counterfault.proxy.faults.registry import KNOWN
from counterfault.proxy.values.suggestions import unknown

_FOR_TCP = tuple(name for name, kind in KNOWN.items() if kind.tcp)
_NO_REQUESTS = "a tcp listener has connections, not requests"

type _Placed = tuple[KeyPath, str, Mapping[str, Json]]
"""A fault or a metric: its path, the listener it names, and its keys."""


def tcp_listeners(sidecar: Json) -> Mapping[str, bool]:
    """Return for each listener in the data of sidecar.yaml whether its upstreams are tcp ones."""
    listeners = sidecar.get("listeners") if isinstance(sidecar, dict) else None
    is_tcp = {}
    for name, listener in listeners.items() if isinstance(listeners, dict) else ():
        upstream = listener.get("upstream") if isinstance(listener, dict) else None
        urls = upstream if isinstance(upstream, list) else [upstream]
        is_tcp[name] = any(isinstance(url, str) and url.startswith("tcp://") for url in urls)
    return is_tcp


def placement_problems(document: Document, is_tcp: Mapping[str, bool]) -> Iterator[Problem]:
    """Yield an experiment's faults and metrics that their listener does not have or cannot serve.

    Args:
        document: The experiment's file.
        is_tcp: All listeners, see `tcp_listeners`.
    """
    faults = list(_placed(document.data, "faults"))
    metrics = list(_placed(document.data, "steady_state"))
    for path, at, _ in (*faults, *metrics):
        if at not in is_tcp:
            yield document.problem_at_value((*path, "at"), unknown("listener", at, is_tcp))
    for path, at, rule in faults:
        if is_tcp.get(at):
            yield from _unfit_for_connections(document, path, rule)
    for path, at, metric in metrics:
        if is_tcp.get(at) and "match" in metric:
            text = f"{_NO_REQUESTS}; they cannot be matched"
            yield _problem_at(document, path, "match", text)
    yield from _metrics_of_other_units(document, is_tcp, faults, metrics)


def metrics_without_server(document: Document, sidecar: Json) -> Iterator[Problem]:
    """Yield an experiment's Prometheus metrics if sidecar.yaml names no Prometheus server."""
    if isinstance(sidecar, dict) and sidecar.get("prometheus"):
        return
    for number, metric in _items(document.data, "steady_state"):
        if "prometheus" in metric:
            text = "sidecar.yaml has no `prometheus: {url: …}` that could be asked"
            yield document.problem_at_value(("steady_state", number, "prometheus"), text)


def _placed(experiment: Json, section: str) -> Iterator[_Placed]:
    for number, item in _items(experiment, section):
        if isinstance(at := item.get("at"), str):
            yield (section, number), at, item


def _items(experiment: Json, section: str) -> Iterator[tuple[int, Mapping[str, Json]]]:
    items = experiment.get(section) if isinstance(experiment, dict) else None
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield number, item


def _unfit_for_connections(
    document: Document, path: KeyPath, rule: Mapping[str, Json]
) -> Iterator[Problem]:
    """Yield the keys of a fault rule that mean nothing at a tcp listener."""
    for name in KNOWN:
        if name in rule and name not in _FOR_TCP:
            text = f"{_NO_REQUESTS}; it takes {', '.join(_FOR_TCP)}"
            yield _problem_at(document, path, name, text)
    for key in ("match", "per"):
        if key in rule:
            yield _problem_at(document, path, key, f"{_NO_REQUESTS}; there is nothing to match")
    if isinstance(rule.get("dose"), dict):
        text = "at a tcp listener it must be a share such as 50%"
        yield _problem_at(document, path, "dose", text)
    truncate = rule.get("truncate")
    if isinstance(truncate, dict) and "share" in truncate:
        text = "a connection has no length to have a share of; say `after`"
        yield _problem_at(document, (*path, "truncate"), "share", text)


def _metrics_of_other_units(
    document: Document, is_tcp: Mapping[str, bool], faults: list[_Placed], metrics: list[_Placed]
) -> Iterator[Problem]:
    """Yield metrics that compare connections where the faults hit users, or the other way round.

    The cohorts of connections and of users are drawn independently, so that nothing would differ.
    """
    hit = {is_tcp[at] for _, at, _ in faults if at in is_tcp}
    for path, at, _ in metrics:
        if at in is_tcp and hit and is_tcp[at] not in hit:
            units, others = ("connections", "users") if is_tcp[at] else ("users", "connections")
            listeners = ", ".join(sorted({name for _, name, _ in faults}))
            text = f"compares {units}, but the faults at {listeners} are for {others}"
            yield document.problem_at_value((*path, "at"), text)


def _problem_at(document: Document, path: KeyPath, key: str, text: str) -> Problem:
    """Return a problem of the key itself, with the whole path to it."""
    return replace(document.problem_at_key(path, key, text), path=dotted((*path, key)))
