"""The tables that `make generate` writes into pages say what the code says."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from counterfault.proxy.faults.registry import KNOWN
from docs import faults_table, metrics_table
from docs.marked import replace
from tests.simulate import readme

TABLES = {"faults": faults_table, "metrics": metrics_table, "simulation": readme}
ROOT = Path(__file__).parents[2]


def _pages() -> list[Any]:
    return [
        pytest.param(table, page, id=f"{name} in {page.relative_to(ROOT)}")
        for name, table in TABLES.items()
        for page in table.PAGES
    ]


@pytest.mark.parametrize(("table", "page"), _pages())
def test_a_page_has_the_table_of_today(table: ModuleType, page: Path):
    text = page.read_text()
    assert table.written(text) == text, "run `make generate`"


@pytest.mark.parametrize("name", KNOWN)
def test_each_fault_has_a_row_with_an_example(name):
    lines = faults_table.table().splitlines()
    row = next(row for row in lines if row.startswith(f"| `{name}` |"))
    _, _, example, what, _ = row.replace("\\|", "/").split("|")
    assert example.strip().startswith("`")
    assert what.strip()


@pytest.mark.parametrize("name", TABLES)
def test_the_rest_of_a_page_stays_as_it_is(tmp_path, monkeypatch, name):
    table, page = TABLES[name], tmp_path / "README.md"
    marked = f"<!-- {name}: written by make generate -->\nof yesterday\n<!-- end of {name} -->"
    page.write_text(f"# Title\n\n{marked}\n\nthe end\n")
    monkeypatch.setattr(table, "PAGES", (page,))
    table.main()
    told = page.read_text()
    assert told.startswith("# Title\n")
    assert told.endswith("\n\nthe end\n")
    assert "of yesterday" not in told
    assert table.table() in told


@pytest.mark.parametrize(
    "page", ["", "<!-- faults: written by make generate -->\n", "<!-- end of faults -->"]
)
def test_a_page_without_a_place_for_the_table_is_an_error(page):
    with pytest.raises(ValueError, match="no place for faults"):
        replace(page, "faults", "|")
