"""Checks across files: experiments against each other and sidecar.yaml, and the files it names."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from counterfault.proxy.config.certificate_authority import parse_signer
from counterfault.proxy.config.document import Document, KeyPath, Problem
from counterfault.proxy.config.files import read_regular_file, reason_of
from counterfault.proxy.config.placement import (
    metrics_without_server,
    placement_problems,
    tcp_listeners,
)
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.config.token_file import read_token
from counterfault.proxy.config.validation_errors import Validated
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.values.units import percent

_PEM_BYTES = 1 << 20


def cross_check_problems(
    directory: Path, sidecar: Validated[Sidecar], experiments: Sequence[Validated[Experiment]]
) -> Iterator[Problem]:
    """Yield what a model cannot see because it looks at its own file alone.

    Reads the files that sidecar.yaml names, such as certificates.
    """
    yield from _duplicate_names([each.document for each in experiments])
    is_tcp = tcp_listeners(sidecar.document.data)
    if is_tcp:
        for each in experiments:
            yield from placement_problems(each.document, is_tcp)
    for each in experiments:
        yield from metrics_without_server(each.document, sidecar.document.data)
    if sidecar.model is not None:
        yield from _unusable_files(directory, sidecar.document, sidecar.model)
        yield from _above_enrolled_limit(sidecar.model.limits.enrolled, experiments)


def _duplicate_names(documents: Sequence[Document]) -> Iterator[Problem]:
    files: dict[str, str] = {}
    for document in documents:
        name = document.data.get("experiment") if isinstance(document.data, dict) else None
        if not isinstance(name, str):
            continue
        if name in files:
            yield document.problem_at_value(("experiment",), f"already used in {files[name]}")
        files.setdefault(name, document.file)


def _above_enrolled_limit(
    limit: float, experiments: Sequence[Validated[Experiment]]
) -> Iterator[Problem]:
    """Yield the first running experiment whose cohorts take the sum above the limit.

    Experiments after it are not reported: without this one they might fit.
    """
    others: list[str] = []
    total = 0.0
    for each in experiments:
        if each.model is None or each.model.state != "running":
            continue
        share = each.model.cohorts.experiment + each.model.cohorts.control
        total += share
        if total > limit + 1e-9:
            rest = f" with {', '.join(others)}" if others else ""
            text = f"cohorts sum to {percent(total)}{rest}; limits.enrolled allows {percent(limit)}"
            yield each.document.problem_at_key((), "cohorts", text)
            return
        others.append(f"{each.model.name} ({percent(share)})")


def _unusable_files(directory: Path, document: Document, sidecar: Sidecar) -> Iterator[Problem]:
    for path, name in _named_files(sidecar):
        try:
            read_regular_file(directory / name, _PEM_BYTES)
        except OSError as e:
            yield document.problem_at_value(path, f"cannot read {name}: {reason_of(e)}")

    if sidecar.forward_ca is not None:
        yield from _unusable(directory, document, ("forward_ca",), sidecar.forward_ca, _read_ca)
    if sidecar.admin.token_file is not None:
        path = ("admin", "token_file")
        yield from _unusable(directory, document, path, sidecar.admin.token_file, read_token)


def _read_ca(path: Path) -> None:
    parse_signer(read_regular_file(path, _PEM_BYTES))


def _unusable(
    directory: Path, document: Document, path: KeyPath, name: str, read: Callable[[Path], object]
) -> Iterator[Problem]:
    """Yield a problem at the value `path` if `read` raises OSError or ValueError for its file."""
    try:
        read(directory / name)
    except OSError as e:
        yield document.problem_at_value(path, f"cannot read {name}: {reason_of(e)}")
    except ValueError as e:
        yield document.problem_at_value(path, f"cannot use {name}: {e}")


def _named_files(sidecar: Sidecar) -> Iterator[tuple[KeyPath, str]]:
    server = sidecar.prometheus
    for key in ("token_file", "ca"):
        if server is not None and (name := getattr(server, key)) is not None:
            yield ("prometheus", key), name
    for name, listener in sidecar.listeners.items():
        path = ("listeners", name)
        if listener.tls is not None:
            yield (*path, "tls", "cert"), listener.tls.cert
            yield (*path, "tls", "key"), listener.tls.key
        if listener.ca is not None:
            yield (*path, "ca"), listener.ca
