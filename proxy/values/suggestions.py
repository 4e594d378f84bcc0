"""The error for an unknown name: it lists the known ones and suggests the closest."""

from collections.abc import Iterable
from difflib import get_close_matches

from counterfault.proxy.values.units import shown


def unknown(what: str, name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """Return a sentence for an unknown name, with the known names and the closest of them.

    Such as `unknown fault 'latencey'; known: drop, error, latency; did you mean 'latency'?`. A name
    in `also` may be suggested and is not listed.
    """
    names = sorted(known)
    said = f"unknown {what} {shown(name)}; known: {', '.join(names)}"
    close = get_close_matches(name, [*names, *also], 1) if len(name) <= 40 else []
    return f"{said}; did you mean '{close[0]}'?" if close else said
