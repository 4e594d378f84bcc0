"""All replacements of mitmproxy's functions in one list.

`python -m counterfault.addons.mitm.fast_paths` prints for each whether it fits the installed
mitmproxy, and the hash that is installed. After an upgrade of mitmproxy, for each that does not
fit: read what has changed in its `sources`, change ours to match, run its twin test in
tests/unit/addons/mitm/, and only then write the new hash into its `written_against`.
"""

from counterfault.addons.mitm import fast_headers, fast_identity, fast_layers, replacement

ALL = (
    *fast_headers.REPLACEMENTS,
    *fast_identity.REPLACEMENTS,
    *fast_layers.REPLACEMENTS,
)


def install() -> tuple[str, ...]:
    """Install all that fit. Returns the names of the others, which the log has named too."""
    return replacement.install(ALL)


def table() -> str:
    """Return a line for each replacement: fits or differs, the installed hash, its name."""
    return "\n".join(
        f"{'fits' if each.fits() else 'differs':8} {replacement.source_hash(each)} {each.name}"
        for each in ALL
    )


if __name__ == "__main__":
    print(table())
