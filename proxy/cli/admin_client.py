"""Sends requests to the admin port of a running sidecar."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfault.proxy.config.files import reason_of
from counterfault.proxy.config.token_file import read_token
from counterfault.proxy.models.json_model import JsonModel


class Refused(Exception):
    """A command could not do what was asked; its text says why."""


@dataclass(frozen=True, slots=True)
class AdminClient:
    """`url` is the admin port's; `token_file` holds its token if it wants one."""

    url: str
    token_file: Path | None = None

    def ask(self, method: str, path: str, timeout: float = 10.0) -> Any:
        """Return the answer: data if it is JSON, else text. Raises Refused with its text."""
        request = urllib.request.Request(self.url.rstrip("/") + path, method=method)
        if self.token_file is not None:
            # Not handed on to wherever a redirect leads.
            request.add_unredirected_header("Authorization", f"Bearer {_token(self.token_file)}")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                body = answer.read()
                is_json = answer.headers.get_content_type().endswith("json")
        except urllib.error.HTTPError as e:
            raise Refused(_problem(e)) from e
        except OSError as e:
            raise Refused(f"no sidecar answers at {self.url}: {e}") from e
        return json.loads(body) if is_json else body.decode()

    def get[Model: JsonModel](self, path: str, model: type[Model]) -> Model:
        """Return the answer as a model. Raises Refused, also where it is not of this model."""
        try:
            return model.from_data(self.ask("GET", path))
        except ValueError as e:
            raise Refused(f"the sidecar at {self.url} is of another version: {e}") from e


def _token(path: Path) -> str:
    try:
        return read_token(path).decode("ascii")
    except OSError as e:
        raise Refused(f"cannot read {path}: {reason_of(e)}") from e
    except ValueError as e:
        raise Refused(f"cannot use {path}: {e}") from e


def _problem(error: urllib.error.HTTPError) -> str:
    """Return the text of an RFC 9457 problem."""
    try:
        problem = json.loads(error.read())
        return "\n".join([problem.get("detail", str(error)), *problem.get("errors", ())])
    except ValueError:
        return str(error)
