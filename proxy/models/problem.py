"""An error that the API answers with."""

import json
from dataclasses import dataclass

from counterfault.proxy.models.json_model import JsonModel


@dataclass(frozen=True, kw_only=True)
class Problem(JsonModel):
    """What is wrong with a request, as in RFC 9457"""

    type: str
    title: str
    status: int
    detail: str
    errors: list[str] | None = None
    """One line for each place in the configuration"""

    def as_json(self, *, indent: int | None = None, ascii_only: bool = False) -> str:
        """Return the JSON text, without `errors` if there are none."""
        data = {name: value for name, value in vars(self).items() if value is not None}
        return json.dumps(data, indent=indent, ensure_ascii=ascii_only)
