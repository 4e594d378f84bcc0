"""Writes Grafana's dashboards: `make generate`."""

from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import experiment, fleet

DIRECTORY = Path(__file__).parent / "dashboards"
BOARDS: dict[str, Callable[[], Dashboard]] = {
    "experiment.json": experiment.build,
    "fleet.json": fleet.build,
}


def text(board: Dashboard) -> str:
    """A dashboard as the JSON that Grafana reads, its panels and queries numbered."""
    built = board.build()
    for number, panel in enumerate(built.panels or (), 1):
        panel.id_val = number
        for letter, target in zip(
            ascii_uppercase, getattr(panel, "targets", None) or (), strict=False
        ):
            target.ref_id = letter
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, build in BOARDS.items():
        (DIRECTORY / name).write_text(text(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
