"""The README's table of faults is what the faults and their examples say."""

from pathlib import Path

import pytest

from counterfault.proxy.faults import KNOWN
from docs.faults_table import main, table, written

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "examples"


def test_the_readme_has_the_table_of_today():
    readme = (ROOT / "README.md").read_text()
    assert written(readme, EXAMPLES) == readme, "run `make schema`"


@pytest.mark.parametrize("name", KNOWN)
def test_each_fault_has_a_row_with_an_example(name):
    row = next(row for row in table(EXAMPLES).splitlines() if row.startswith(f"| `{name}` |"))
    _, _, example, what, _ = row.replace("\\|", "/").split("|")
    assert example.strip().startswith("`")
    assert what.strip()


def test_the_rest_of_a_readme_stays_as_it_is(tmp_path):
    readme = tmp_path / "README.md"
    marked = "<!-- faults: written by make schema -->\nof yesterday\n<!-- end of faults -->"
    readme.write_text(f"# Title\n\n{marked}\n\nthe end\n")
    main(readme, EXAMPLES)
    told = readme.read_text()
    assert told.startswith("# Title\n")
    assert told.endswith("\n\nthe end\n")
    assert "of yesterday" not in told
    assert table(EXAMPLES) in told
