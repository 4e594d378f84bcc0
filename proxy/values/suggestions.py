"""Error messages for unknown names, with a suggestion."""

from collections.abc import Iterable
from difflib import get_close_matches

from counterfault.proxy.values.units import shown


def unknown(what: str, name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """Return a message such as `unknown fault 'dorp'; known: drop, error; did you mean 'drop'?`.

    Args:
        what: What kind of name it is.
        name: The unknown name.
        known: The names there are.
        also: More names that may be suggested, and are not listed.
    """
    names = sorted(known)
    said = f"unknown {what} {shown(name)}; known: {', '.join(names)}"
    close = get_close_matches(name, [*names, *also], 1) if len(name) <= 40 else []
    return f"{said}; did you mean '{close[0]}'?" if close else said
