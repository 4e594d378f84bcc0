"""Loads a configuration directory: sidecar.yaml and experiments/*.yaml, all of it or nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from counterfault.proxy.config.cross_checks import cross_check_problems
from counterfault.proxy.config.document import Document, Problem, unreadable_document
from counterfault.proxy.config.files import read_regular_file, reason_of
from counterfault.proxy.config.model import Config, ConfigError
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.config.validation_errors import validate
from counterfault.proxy.config.yaml_reader import MOST_BYTES, read_yaml
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.faults.base import FILE_BYTES

SIDECAR = "sidecar.yaml"
EXPERIMENTS = "experiments"


def load(directory: Path) -> Config:
    """Return the configuration in a directory.

    Raises:
        ConfigError: The directory cannot be read or has mistakes; the error lists all of them.
    """
    try:
        os.listdir(directory)
    except OSError as e:
        text = f"cannot be read: {reason_of(e)}"
        raise ConfigError([Problem(str(directory), 0, 0, "", text)]) from e
    sidecar = validate(_document(directory, SIDECAR), Sidecar)
    files = _NamedFiles(directory / EXPERIMENTS)
    experiments = [
        validate(document, Experiment, files.read) for document in _experiments(directory)
    ]
    problems = [problem for each in (sidecar, *experiments) for problem in each.problems]
    problems += cross_check_problems(directory, sidecar, experiments)
    if problems or sidecar.model is None:
        raise ConfigError(problems)
    models = tuple(each.model for each in experiments if each.model is not None)
    raw = tuple(_raw(each.document) for each in experiments)
    return Config(directory, sidecar.model, models, _raw(sidecar.document), raw, files.contents)


class _NamedFiles:
    """The files that experiments name, each read once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.contents: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        if name not in self.contents:
            self.contents[name] = read_regular_file(self._directory / name, FILE_BYTES + 1)
        return self.contents[name]


def _experiments(directory: Path) -> Iterator[Document]:
    try:
        names = sorted(os.listdir(directory / EXPERIMENTS))
    except FileNotFoundError:
        return
    except OSError as e:
        yield unreadable_document(EXPERIMENTS, f"cannot be read: {reason_of(e)}")
        return
    for name in names:
        # Skip Kubernetes' `..data` directory and the hidden files that editors leave behind.
        if name.endswith((".yaml", ".yml")) and not name.startswith("."):
            yield _document(directory, f"{EXPERIMENTS}/{name}")


def _document(directory: Path, file: str) -> Document:
    try:
        # One byte above the limit is enough for `read_yaml` to refuse the file.
        return read_yaml(file, read_regular_file(directory / file, MOST_BYTES + 1))
    except OSError as e:
        return unreadable_document(file, f"cannot be read: {reason_of(e)}")


def _raw(document: Document) -> dict[str, Any]:
    """Return the data that a model was made from, which is a mapping since the model is valid."""
    return cast(dict[str, Any], document.data)
