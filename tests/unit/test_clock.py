"""No deadline hangs on the wall clock, which operators and NTP may set back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Wall-clock readers, and the modules that may use them, with what for.
WALL = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "ctime"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
ALLOWED = {
    "addons/http/upstream_codec.py": "the timestamp in mitmproxy's messages, which nobody reads",
    "addons/pipeline/perform.py": "the same",
    "addons/transport/certificate_issuer.py": "certificates are valid from a date to a date",
    "proxy/admin/access_token.py": "a browser's session ends at a date",
    "proxy/supervisor/prometheus_poller.py": "Prometheus is asked about a moment",
    "proxy/config/certificate_authority.py": "certificates are valid from a date to a date",
    "proxy/supervisor/supervisor.py": "`not_after` is a date, and history is for people",
}


def readers(source: str) -> list[int]:
    """The lines that name a reader of the wall clock, called or handed on; sorted."""
    tree = ast.parse(source)
    named = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (_last(node.value), node.attr) in WALL
    }
    imported = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in WALL
    }
    return sorted(named | imported)


def _last(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import time\nend = time.time() + 1", [2]),
        ("import time\nclock = time.time", [2]),
        ("from time import time", [1]),
        ("import datetime\n\nnow = datetime.datetime.now()", [3]),
        ("from datetime import datetime\nnow = datetime.now(UTC)", [2]),
        ("import time\nend = time.monotonic() + 1", []),
        ("loop.time()", []),
    ],
)
def test_a_reader_of_the_wall_clock_is_found(source: str, lines: list[int]) -> None:
    assert readers(source) == lines


def test_only_dates_come_from_the_wall_clock() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for package in ("addons", "proxy")
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in readers(path.read_text())
        if str(path.relative_to(ROOT)) not in ALLOWED
    }
    assert found == set()
