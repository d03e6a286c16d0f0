"""`benchmarks/digits.py`: the committed table is what its results make."""

from __future__ import annotations

import re

import digits

from genet.search.outcome import Outcomes


def test_the_committed_table_is_what_its_results_make() -> None:
    committed = (digits.RESULTS / "table.md").read_text()
    (seconds,) = re.findall(r"took (\d+) s", committed)
    found = Outcomes.load(digits.RESULTS / "results.json")
    made = digits.table(found, digits.RESULTS / "environment.json", float(seconds))
    assert committed.startswith(made)
    assert " 1 threads" not in made
    assert len(re.findall(r"` \| \d+\.\d ± \d\.\d \| ", made)) == len(found.outcomes), "each accuracy with its error"
