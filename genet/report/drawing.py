"""Figures as SVG, in the colours that all of them share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#1b6ca8", "#c8553d", "#588157", "#8a8f98"
NARROW = 4.6  # inches: a figure so wide can be read on a page of 400 pixels
KIND_COLOURS = {"XX": BLUE, "BL": RED, "DW": GREEN}


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, titles: Mapping[str, str] | None = None) -> str:
    """Return the figure as an <svg> element; equal figures give equal bytes.

    Elements of the ids in `titles` show a text when they are pointed at.
    """
    import matplotlib as mpl

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "genet", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=200)
    text = buffer.getvalue()
    for name, title in (titles or {}).items():
        text = text.replace(f'<g id="{name}">', f'<g id="{name}"><title>{escape(title)}</title>')
    return text[text.index("<svg") :]
