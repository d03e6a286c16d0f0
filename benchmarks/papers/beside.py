"""Rows of the page that has the papers' figures beside ours; the difference is always computed, never typed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from papers import Published

NO_FIGURES = "shown without figures"
RANKS = "Spearman"  # the unit of a rank correlation


@dataclass(frozen=True)
class Row:
    """One line of the page: a table or figure, its subject, the paper's figure, ours, how it was obtained, the difference."""

    where: str
    what: str
    paper: str
    ours: str
    how: str
    difference: str = ""


def compared(seed: Published, ours: float, how: str) -> Row:
    """Return a row with both figures; their difference is in points between percentages, plain between ranks, else relative."""
    paper = NO_FIGURES if seed.value is None else f"{seed.value:,.6g}{_unit(seed)}"
    return Row(seed.where, seed.what, paper, f"{rounded(ours)}{_unit(seed)}", how, _difference(seed, ours))


def lacking(seed: Published, why: str) -> Row:
    """Return a row without a figure of ours, with the reason and the command that would make it."""
    paper = NO_FIGURES if seed.value is None else f"{seed.value:,.6g}{_unit(seed)}"
    return Row(seed.where, seed.what, paper, "none yet", why)


def rounded(value: float) -> str:
    """Return a number with three significant digits, and without an exponent; a count as it is, n/a for what was not measured."""
    if isinstance(value, int) or math.isnan(value):
        return f"{value:,}" if isinstance(value, int) else "n/a"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def listed(items: list[str]) -> str:
    """Return items with commas between them."""
    return ", ".join(items)


def _unit(seed: Published) -> str:
    return f" {seed.unit}" if seed.unit else ""


def _difference(seed: Published, ours: float) -> str:
    if seed.value is None:
        return ""
    if seed.unit == "%":
        return f"{ours - seed.value:+.1f} points"
    return f"{ours - seed.value:+.2f}" if seed.unit == RANKS else f"{ours / seed.value - 1:+.1%}"
