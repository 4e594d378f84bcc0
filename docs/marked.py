"""The parts of Markdown pages that programs write; they stand between two marks."""

_NOTE = "written by make generate"


def replace(page: str, name: str, table: str) -> str:
    """Return the page with `table` in the place of what stands between the marks of `name`.

    Raises ValueError if the page has no such place.
    """
    begin, end = f"<!-- {name}: {_NOTE} -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no place for {name}: {begin.strip()} … {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"
