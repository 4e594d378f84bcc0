"""The README's table of faults, from the faults and from the examples that use them.

`python -m proxy.catalogue README.md config/examples` writes it anew, between its two marks.
"""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from counterfault.proxy.config.yaml_reader import read
from counterfault.proxy.faults import KNOWN

BEGIN, END = "<!-- faults: written by make schema -->\n", "<!-- end of faults -->"
_MARKED = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
_MOST = 5


def table(examples: Path) -> str:
    """A row for each fault: its name, what it may be told, what it does."""
    rows = ["| fault | for example | |", "|---|---|---|"]
    for name, kind in KNOWN.items():
        said = ", ".join(f"`{settings}`" for settings in _settings(examples, name)[:_MOST])
        what = " ".join((kind.__doc__ or "").split()).rstrip(".")
        rows.append(f"| `{name}` | {said} | {what[:1].lower()}{what[1:]} |")
    return "\n".join(rows) + "\n"


def written(readme: str, examples: Path) -> str:
    """A README with the table as it is today."""
    return _MARKED.sub(lambda _: BEGIN + table(examples) + END, readme)


def _settings(examples: Path, name: str) -> list[str]:
    """What a fault's own example tells it, each thing once; a bar would end the table's cell."""
    document: Any = read(name, (examples / f"{name}.yaml").read_bytes()).data
    said = [_flow(rule[name]) for rule in document["faults"] if name in rule]
    return [text.replace("|", "\\|") for text in dict.fromkeys(said)]


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return " ".join(text.removesuffix("\n...\n").split())


def main(readme: Path, examples: Path) -> None:
    readme.write_text(written(readme.read_text(), examples))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
