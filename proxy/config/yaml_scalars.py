"""The values of YAML scalars after the core schema of YAML 1.2.2 (section 10.3), but stricter."""

import math
import re

import yaml

_CONSTANTS = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}
# 18 digits fit into 64 bits everywhere. More digits are text, and so is 010, which is 8 to some
# parsers.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
    r"[-+]?(?:(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+)"
)


def scalar_of(event: yaml.ScalarEvent) -> bool | int | float | str | None:
    """Return the value of a scalar; what is quoted, or nothing else, is text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    number = float(text) if _FLOAT.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text
