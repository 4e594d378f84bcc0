"""The configuration directory: sidecar.yaml and experiments/*.yaml, good as a whole or not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from counterfault.proxy.config.cross_checks import disagreements
from counterfault.proxy.config.document import Document, Problem, unreadable
from counterfault.proxy.config.files import read_regular_file, reason_of
from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.config.validation_errors import judge
from counterfault.proxy.config.yaml_reader import MOST_BYTES, read
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.faults.base import FILE_BYTES

SIDECAR = "sidecar.yaml"
EXPERIMENTS = "experiments"


def load(directory: Path) -> Config:
    """The configuration in a directory; raises ConfigError with all its problems at once."""
    try:
        os.listdir(directory)
    except OSError as e:
        said = f"cannot be read: {reason_of(e)}"
        raise ConfigError([Problem(str(directory), 0, 0, "", said)]) from e
    sidecar = judge(_document(directory, SIDECAR), Sidecar)
    files = _Files(directory / EXPERIMENTS)
    experiments = [judge(document, Experiment, files.read) for document in _experiments(directory)]
    problems = [problem for judged in (sidecar, *experiments) for problem in judged.problems]
    problems += disagreements(directory, sidecar, experiments)
    if problems or sidecar.model is None:
        raise ConfigError(problems)
    models = tuple(judged.model for judged in experiments if judged.model is not None)
    raw = tuple(_raw(judged.document) for judged in experiments)
    return Config(directory, sidecar.model, models, _raw(sidecar.document), raw, files.seen)


class _Files:
    """The files that experiments name, each read once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.seen: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        if name not in self.seen:
            self.seen[name] = read_regular_file(self._directory / name, FILE_BYTES + 1)
        return self.seen[name]


def _experiments(directory: Path) -> Iterator[Document]:
    try:
        names = sorted(os.listdir(directory / EXPERIMENTS))
    except FileNotFoundError:
        return
    except OSError as e:
        yield unreadable(EXPERIMENTS, f"cannot be read: {reason_of(e)}")
        return
    for name in names:
        # Kubernetes' `..data` and editors' leftovers are hidden or end in something else.
        if name.endswith((".yaml", ".yml")) and not name.startswith("."):
            yield _document(directory, f"{EXPERIMENTS}/{name}")


def _document(directory: Path, file: str) -> Document:
    try:
        # One byte more than is allowed is enough to tell.
        return read(file, read_regular_file(directory / file, MOST_BYTES + 1))
    except OSError as e:
        return unreadable(file, f"cannot be read: {reason_of(e)}")


def _raw(document: Document) -> dict[str, Any]:
    """The data of which a model was made: a mapping."""
    return cast(dict[str, Any], document.data)
