"""Private names of mitmproxy, h11 and pyOpenSSL stand in one module."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from h2.connection import H2Connection
from mitmproxy.proxy.layer import Layer

ROOT = Path(__file__).parents[4]
FILES = sorted(p for room in ("addons", "proxy") for p in (ROOT / room).rglob("*.py"))
LIBRARIES = ("mitmproxy", "h11", "OpenSSL")
PRIVATE = ROOT / "addons" / "mitm" / "private.py"
# Its functions stand in for methods of Layer.
FAST_LAYERS = ROOT / "addons" / "mitm" / "fast_layers.py"
LAYER_STATE = {"_paused_event_queue", "_paused"}


@cache
def parsed(file: Path) -> ast.AST:
    return ast.parse(file.read_text())


def is_private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in dotted.split("."))


def private_imports(tree: ast.AST) -> Iterator[str]:
    """What is imported of the three libraries with an underscore before any part of its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] in LIBRARIES]
        else:
            continue
        yield from filter(is_private, names)


def private_attributes(tree: ast.AST) -> Iterator[str]:
    """Underscore names that code reaches for in what is neither its own object nor its class."""
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of = ast.unparse(node.value)
            own = of in ("self", "cls", "super()") or of in classes
            if not own and f"{of}.{node.attr}" != "os._exit":
                yield f"{ast.unparse(node)} (line {node.lineno})"


def test_private_modules_and_names_are_imported_in_one_place() -> None:
    found = {file: list(private_imports(parsed(file))) for file in FILES if file != PRIVATE}
    assert {file: names for file, names in found.items() if names} == {}


def test_private_attributes_of_other_objects_are_used_in_one_place() -> None:
    addons = [file for file in FILES if ROOT / "addons" in file.parents and file != PRIVATE]
    found = {file: list(private_attributes(parsed(file))) for file in addons}
    assert {file: names for file, names in found.items() if names} == {}


def test_a_layers_queue_and_pause_are_looked_at_in_one_place() -> None:
    for file in FILES:
        used = {node.attr for node in ast.walk(parsed(file)) if isinstance(node, ast.Attribute)}
        assert file in (PRIVATE, FAST_LAYERS) or not used & LAYER_STATE, file


def test_the_rule_finds_what_it_forbids() -> None:
    bad = "import h11._readers\nfrom mitmproxy.x._y import Z\nfrom OpenSSL.SSL import _lib\na.b._c"
    assert len(list(private_imports(ast.parse(bad)))) == 3
    assert len(list(private_attributes(ast.parse(bad)))) == 1


def test_private_methods_that_ours_override_are_still_there() -> None:
    """A subclass whose method has lost its name in the library would never be called."""
    assert callable(vars(H2Connection)["_receive_goaway_frame"])
    assert callable(vars(Layer)["_handle_event"])
