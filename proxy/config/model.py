"""A valid configuration as a value, and the error that lists what is wrong with one; no IO."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterfault.proxy.config.document import Problem
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.experiments.experiment import Experiment

_MOST_SHOWN = 100


class ConfigError(Exception):
    """Everything that is wrong with a configuration, sorted by file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Return one line for each problem, at most a hundred."""
        lines = [str(problem) for problem in self.problems[:_MOST_SHOWN]]
        more = len(self.problems) - _MOST_SHOWN
        return "\n".join([*lines, f"and {more} more problems"] if more > 0 else lines)


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration: the models, and the raw data that they were made from.

    Attributes:
        directory: The configuration directory; file names in the models are relative to it.
        sidecar: The model of sidecar.yaml.
        experiments: The models of the experiment files, in the order of the file names.
        raw_sidecar: The data of sidecar.yaml as the user wrote it.
        raw_experiments: The data of each experiment file, in the order of `experiments`.
        files: The content of each file that an experiment names, by the name used there.
            A change of content is a change of the experiment.
    """

    directory: Path
    sidecar: Sidecar
    experiments: tuple[Experiment, ...]
    raw_sidecar: dict[str, Any]
    raw_experiments: tuple[dict[str, Any], ...]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """Return the configuration as JSON data, to be sent to a worker process."""
        return {
            "directory": str(self.directory),
            "sidecar": self.raw_sidecar,
            "experiments": list(self.raw_experiments),
            "files": {name: content.decode("latin-1") for name, content in self.files.items()},
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> "Config":
        """Return the configuration that another process has sent with `wire()`.

        Raises:
            pydantic.ValidationError: The data is not a valid configuration.
        """
        files = {name: content.encode("latin-1") for name, content in wire.get("files", {}).items()}
        context = {"files": files.__getitem__}
        return cls(
            Path(wire["directory"]),
            Sidecar.model_validate(wire["sidecar"]),
            tuple(Experiment.model_validate(raw, context=context) for raw in wire["experiments"]),
            wire["sidecar"],
            tuple(wire["experiments"]),
            files,
        )
