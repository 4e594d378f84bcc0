"""What has to agree between the files of a configuration, and with those they name."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from counterfault.proxy.config import token_file
from counterfault.proxy.config.certificate_authority import parse_signer
from counterfault.proxy.config.document import Document, Problem, Where
from counterfault.proxy.config.files import read_regular_file, reason_of
from counterfault.proxy.config.placement import misplaced, schemes_of, unasked
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.config.validation_errors import Judged
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.values.units import percent

_PEM_BYTES = 1 << 20


def disagreements(
    directory: Path, sidecar: Judged[Sidecar], experiments: Sequence[Judged[Experiment]]
) -> Iterator[Problem]:
    """All that the models cannot see, each looking at its own file."""
    yield from _twice([judged.document for judged in experiments])
    schemes = schemes_of(sidecar.document.data)
    if schemes:
        for judged in experiments:
            yield from misplaced(judged.document, schemes)
    for judged in experiments:
        yield from unasked(judged.document, sidecar.document.data)
    if sidecar.model is not None:
        yield from _missing(directory, sidecar.document, sidecar.model)
        yield from _past_the_cap(sidecar.model.limits.enrolled, experiments)


def _twice(documents: Sequence[Document]) -> Iterator[Problem]:
    files: dict[str, str] = {}
    for document in documents:
        name = document.data.get("experiment") if isinstance(document.data, dict) else None
        if not isinstance(name, str):
            continue
        if name in files:
            yield document.at_value(("experiment",), f"already used in {files[name]}")
        files.setdefault(name, document.file)


def _past_the_cap(cap: float, experiments: Sequence[Judged[Experiment]]) -> Iterator[Problem]:
    """The one experiment that goes past; what comes after it may be innocent."""
    others: list[str] = []
    total = 0.0
    for judged in experiments:
        if judged.model is None or judged.model.state != "running":
            continue
        share = judged.model.cohorts.experiment + judged.model.cohorts.control
        total += share
        if total > cap + 1e-9:
            rest = f" with {', '.join(others)}" if others else ""
            said = f"cohorts sum to {percent(total)}{rest}; limits.enrolled allows {percent(cap)}"
            yield judged.document.at_key((), "cohorts", said)
            return
        others.append(f"{judged.model.name} ({percent(share)})")


def _missing(directory: Path, document: Document, sidecar: Sidecar) -> Iterator[Problem]:
    for where, name in _named_files(sidecar):
        try:
            read_regular_file(directory / name, _PEM_BYTES)
        except OSError as e:
            yield document.at_value(where, f"cannot read {name}: {reason_of(e)}")

    if sidecar.forward_ca is not None:
        yield from _unusable(directory, document, ("forward_ca",), sidecar.forward_ca, _authority)
    if sidecar.admin.token_file is not None:
        where = ("admin", "token_file")
        yield from _unusable(directory, document, where, sidecar.admin.token_file, token_file.read)


def _authority(path: Path) -> None:
    parse_signer(read_regular_file(path, _PEM_BYTES))


def _unusable(
    directory: Path, document: Document, where: Where, name: str, read: Callable[[Path], object]
) -> Iterator[Problem]:
    """What is wrong with a file that has to hold something; `read` raises it."""
    try:
        read(directory / name)
    except OSError as e:
        yield document.at_value(where, f"cannot read {name}: {reason_of(e)}")
    except ValueError as e:
        yield document.at_value(where, f"cannot use {name}: {e}")


def _named_files(sidecar: Sidecar) -> Iterator[tuple[Where, str]]:
    server = sidecar.prometheus
    for key in ("token_file", "ca"):
        if server is not None and (name := getattr(server, key)) is not None:
            yield ("prometheus", key), name
    for name, listener in sidecar.listeners.items():
        where = ("listeners", name)
        if listener.tls is not None:
            yield (*where, "tls", "cert"), listener.tls.cert
            yield (*where, "tls", "key"), listener.tls.key
        if listener.ca is not None:
            yield (*where, "ca"), listener.ca
