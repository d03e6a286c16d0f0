"""Every table and figure of the three papers beside ours: the paper's figure, ours, how it was obtained, the difference.

    python benchmarks/seeds.py      (within a minute on one CPU core)

Ours come from the committed results and from the code (closed forms, estimates); what neither gives has a row too, with the
reason or the command. Writes benchmarks/results/seeds.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from papers import GENET, TAIL_EFFECT, UTILIZATION, genet_rows, tail_effect_rows, utilization_rows
from papers.beside import Row

from genet.storage import write_atomic

RESULTS = Path(__file__).parent / "results"
PAPERS: tuple[tuple[str, Callable[[Path], Iterator[Row]]], ...] = (
    (GENET, genet_rows.rows),
    (TAIL_EFFECT, tail_effect_rows.rows),
    (UTILIZATION, utilization_rows.rows),
)
HEAD = ("where", "what", "the paper", "ours", "how ours was obtained", "difference")
INTRODUCTION = """# The papers' figures beside ours

Written by `python benchmarks/seeds.py`: every table and figure of the three papers. Differences are of ours from the paper's,
relative, or in points between percentages. `measured` names the device, which is never the paper's, so such a difference is one
of devices too. `estimate:GPU` is the analytic model of a GPU that is not here, never a measurement; `x 1.34` behind it is the one
factor that brings a whole table to the paper's level. `published data` are other people's measurements. `none yet` says why, or
which command makes the figure.
"""


def main() -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    file = RESULTS / "seeds.md"
    write_atomic(file, page().encode())
    print(file)


def page(results: Path = RESULTS) -> str:
    """The page, from what lies under a folder of results."""
    parts = [INTRODUCTION]
    for title, rows in PAPERS:
        parts.append("\n".join([f"## {title}", "", *as_table(rows(results))]))
    return "\n".join(parts)


def as_table(rows: Iterable[Row]) -> Iterator[str]:
    """Rows as lines of Markdown."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    for row in rows:
        cells = (row.where, row.what, row.paper, row.ours, row.how, row.difference)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


if __name__ == "__main__":
    main()
