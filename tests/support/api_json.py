"""Models as users of the API see them: parsed JSON."""

import json
from typing import Any

from counterfault.proxy.models.json_model import JsonModel


def as_data(model: JsonModel) -> Any:
    """What a client gets that parses the model's JSON."""
    return json.loads(model.as_json())
