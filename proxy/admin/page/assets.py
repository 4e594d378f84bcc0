"""The page's scripts and style sheets, read once. Only these can be requested."""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its content, its media type, and a tag that changes with the content."""

    content: bytes
    kind: str
    etag: str


def _read(folder: Traversable) -> dict[str, Asset]:
    found = {}
    for file in folder.iterdir():
        kind = _KINDS.get(file.name[file.name.rfind(".") :])
        if kind and file.name != "login.css":
            content = file.read_bytes()
            found[file.name] = Asset(content, kind, f'"{sha256(content).hexdigest()[:16]}"')
    return found


_PAGE = files("counterfault.proxy.admin.page")
ASSETS = _read(_PAGE) | _read(_PAGE.joinpath("scripts")) | _read(_PAGE.joinpath("uplot"))
