"""What README.md says of a simulation is what the result has."""

import json

from tests.simulate import readme
from tests.simulate.runner import CELLS, Cell, figures
from tests.simulate.table import Row, row


def _row(cell: Cell, runs: int, **hits: int) -> Row:
    found = {name: [10 * (i < hits.get(name, 0)) for i in range(runs)] for name in figures(cell)}
    return row(cell, found)


def _text(rows: list[Row]) -> str:
    result = {
        "date": "2026-12-01T120000Z",
        "machine": {"cpu": "Abacus(R) Processor 1", "cores": 2},
        "settings": {"seed": 4, "commit": "c0ffee"},
        "cost": {"a": {"median": 20.4}, "b": {"median": 31.2}},
        "rows": rows,
    }
    written: dict[str, object] = json.loads(json.dumps(result))
    return readme.text(written)


def _cells(group: str) -> list[Cell]:
    return [cell for cell in CELLS if cell.group == group]


def test_it_names_commit_seed_and_machine() -> None:
    said = _text([_row(_cells("harm")[0], 1000, refuted=1000)])
    assert "Simulated on 2026-12-01, commit c0ffee, seed 4, on 2 cores of Abacus 1: 1 cells" in said
    assert "20 to 31 µs" in said
    assert "| errors 0.1 → 1 %, 0.5pp | 10 | ≤ 6,500 | 4,211 | met |" in said


def test_crowds_are_rows_over_all_kinds() -> None:
    cells = [cell for cell in _cells("boundary") if "independent" in cell.key]
    rows = [_row(cell, 1000, refuted=70 if not i else 10) for i, cell in enumerate(cells)]
    assert "independent requests | 1.9 % (1.6–2.2) | 7,000 | 6 of 7 |" in _text(rows)


def test_adversarial_groups_show_their_worst_cell() -> None:
    rows = [_row(cell, 1000, held=300 if "10 s" in cell.key else 0) for cell in _cells("time-outs")]
    rows += [_row(cell, 1000) for cell in _cells("an outage is found")]
    said = _text(rows)
    worst = "`held` 30.0 % (27.2–33.0): 3 % fail after 10 s"
    assert f"| time-outs | 2 of 3 | {worst} | 5 % | 1,000 |" in said, said
    assert "| an outage is found | 2 of 2 | `held` 0.0 % (0.0–0.4)" in said


def test_the_committed_result_can_be_read() -> None:
    assert "| the effect is just the tolerance" in readme.table()
