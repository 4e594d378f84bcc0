"""The base of all models, and access to one of two cohorts by its name."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, Self

from pydantic import TypeAdapter

from counterfault.proxy.experiments.cohorts import Cohort

type EffectUnit = Literal["pp", "%"]


@dataclass(frozen=True, kw_only=True)
class JsonModel:
    """A frozen value that can be written as JSON and read again.

    Models are dataclasses without slots: an overview of a thousand experiments has 80,000 of them
    every second, pydantic's own models take three times as long to make, and `vars` is the
    quickest way to their fields. The docstrings of classes and of fields become the descriptions
    in openapi.json.
    """

    def as_json(self, *, indent: int | None = None, ascii_only: bool = False) -> str:
        """Return the JSON text. Fields stand in the order in which their class defines them.

        Args:
            indent: Spaces per level; None writes everything on one line.
            ascii_only: Whether other characters are escaped.
        """
        return json.dumps(self, default=vars, indent=indent, ensure_ascii=ascii_only)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what a JSON text holds; unknown fields are ignored. Raises ValueError."""
        model: Self = cls._reader().validate_json(text)
        return model

    @classmethod
    def from_data(cls, data: object) -> Self:
        """Return what parsed JSON holds; unknown fields are ignored. Raises ValueError."""
        model: Self = cls._reader().validate_python(data)
        return model

    @classmethod
    @cache
    def _reader(cls) -> TypeAdapter[Any]:
        return TypeAdapter(cls)


class HasCohorts[T](Protocol):
    """Has one value for each of the two enrolled cohorts."""

    @property
    def control(self) -> T:
        """The value of control."""
        ...

    @property
    def experiment(self) -> T:
        """The value of the experiment cohort."""
        ...


def of_cohort[T](both: HasCohorts[T], cohort: str) -> T:
    """Return the value of one cohort: of control if its name says so, else of experiment."""
    return both.control if cohort == Cohort.CONTROL else both.experiment
