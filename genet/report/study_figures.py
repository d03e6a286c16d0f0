"""Pictures of the studies."""

from __future__ import annotations

from genet.report.figures import GREY, figure_of, svg
from genet.studies.align.study import Alignment

MOST_NAMES = 40  # that fit below one another


def draw_alignment(found: Alignment) -> str:
    """Widths before and after, layer by layer, and below the latency of each layer at the one and at the other."""
    places = found.places
    figure = figure_of(max(4.0, 0.22 * len(places) + 1.5), 4.6)
    widths, times = figure.subplots(2, 1, sharex=True)
    where = range(len(places))
    chosen = [next(o for o in place.options if o.width == found.widths.get(place.name, place.now.width)) for place in places]
    for axes, before, after in (
        (widths, [place.now.width for place in places], [option.width for option in chosen]),
        (times, [place.now.ms for place in places], [option.ms for option in chosen]),
    ):
        axes.bar([x - 0.2 for x in where], before, 0.4, color=GREY, label="before")
        axes.bar([x + 0.2 for x in where], after, 0.4, color="C0", label="after")
    widths.set_ylabel("width (channels)")
    times.set_ylabel(f"{'estimated' if found.estimate else 'measured'} ms per batch of {found.batch}")
    names = [place.name for place in places] if len(places) <= MOST_NAMES else [str(x + 1) for x in where]
    times.set_xticks(list(where), names, rotation=90, fontsize=6)
    widths.legend(fontsize=6, frameon=False)
    figure.suptitle(f"{found.network} on {found.device}: {found.measured.mean:.3f} of the latency", fontsize=8)
    return svg(figure)
