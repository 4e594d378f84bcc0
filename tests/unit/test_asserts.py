"""Workers run under -O, where an assert does nothing (docs/adr/0002-python-O.md)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_product_has_no_assert_and_does_not_ask_for_debug_mode() -> None:
    files = [file for room in ("addons", "proxy") for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not isinstance(node, ast.Assert), f"{file}:{node.lineno}"
            assert not (isinstance(node, ast.Name) and node.id == "__debug__"), file
