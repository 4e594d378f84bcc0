"""Writes the table of faults into README.md: `make generate`."""

from pathlib import Path
from typing import Any

import yaml

from counterfault.proxy.config.yaml_reader import read_yaml
from counterfault.proxy.faults.registry import BUILT_IN
from docs.marked import replace

TREE = Path(__file__).parents[1]
PAGES = (TREE / "README.md",)
EXAMPLES = TREE / "config" / "examples"
_MOST_EXAMPLES = 5


def table() -> str:
    """Return lines of Markdown, a row for each fault: its name, examples, what it does."""
    rows = ["| fault | for example | |", "|---|---|---|"]
    for name, kind in BUILT_IN.items():
        settings = ", ".join(f"`{text}`" for text in _settings(name)[:_MOST_EXAMPLES])
        effect = " ".join((kind.__doc__ or "").split()).rstrip(".")
        rows.append(f"| `{name}` | {settings} | {effect[:1].lower()}{effect[1:]} |")
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """Return the page with the table as it is today."""
    return replace(page, "faults", table())


def _settings(name: str) -> list[str]:
    """Return each setting that the fault has in its own example."""
    document: Any = read_yaml(name, (EXAMPLES / f"{name}.yaml").read_bytes()).data
    found = [_flow(rule[name]) for rule in document["faults"] if name in rule]
    # An unescaped bar would end the table's cell.
    return [text.replace("|", "\\|") for text in dict.fromkeys(found)]


def _flow(value: Any) -> str:
    """Return the value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return " ".join(text.removesuffix("\n...\n").split())


def main() -> None:
    """Write every page anew."""
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
