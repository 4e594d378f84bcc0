"""An error that the API answers with."""

import json
from dataclasses import dataclass, field

from counterfault.proxy.models.json_model import JsonModel


@dataclass(frozen=True, kw_only=True)
class Problem(JsonModel):
    """What is wrong with a request, as in RFC 9457"""

    type: str
    title: str
    status: int
    detail: str
    errors: list[str] = field(default_factory=list)
    """One line for each place in the configuration; left out if there is none"""

    def as_json(self, *, indent: int | None = None, ascii_only: bool = False) -> str:
        """Return the JSON text, without `errors` if there are none."""
        data = {name: value for name, value in vars(self).items() if name != "errors" or value}
        return json.dumps(data, indent=indent, ensure_ascii=ascii_only)
