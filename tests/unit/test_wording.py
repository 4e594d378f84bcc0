"""Docstrings, comments and messages name who acts."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Words behind which a sentence hides its subject.
_RIDDLES = re.compile(r"\b(whoever|nobody|somebody|those (who|that))\b", re.IGNORECASE)


def test_the_code_has_no_words_that_hide_who_acts():
    files = [p for top in ("proxy", "addons", "counterfault") for p in (ROOT / top).rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if _RIDDLES.search(line)
    ]
    assert len(files) > 200
    assert found == []
