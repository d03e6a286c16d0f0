"""The tail-effect paper's own choice of widths: algorithm 2, lines 7 to 13, and its mirror image for accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from genet.studies.align.objective import Chosen, Objective, stay
from genet.studies.align.place import Option, Place


def greedy(places: Sequence[Place], aim: Objective) -> Chosen:
    """Move the place with the most to gain, and balance it with moves the other way from the end of the queue.

    For latency a layer is scaled down to its left edge, and layers with the least latency gain are scaled up until the parameters
    are back in range; for accuracy a layer is scaled up, and those with the most latency gain are scaled down until the time is.
    If the queue ends before the balance is found, or the balance costs more than the move gains, the move is undone: so the
    answer keeps the bounds, which the paper's own loop does not ensure. Widths stay if the bounds cannot be kept at all.
    """
    chosen = list(stay(places))
    queue = sorted(range(len(places)), key=lambda index: -_gain(places[index], aim))
    while queue and _gain(places[queue[0]], aim) > 0:
        first, *rest = queue
        trial = list(chosen)
        trial[first] = _ahead(places[first], aim) or trial[first]
        used = aim.used(places, tuple(trial))
        for last in sorted(rest, key=lambda index: _saved(places[index]), reverse=aim.mode == "accuracy"):
            if used >= aim.least:
                break
            back = _back(places[last], aim)
            if back is None:
                continue
            moved = aim.used(places, (*trial[:last], back, *trial[last + 1 :]))
            if used < moved <= aim.most:
                trial[last], used = back, moved
                rest.remove(last)
        balanced = aim.allows(used)
        better = aim.worth(places, tuple(trial)) > aim.worth(places, tuple(chosen))
        chosen, queue = (trial, rest) if balanced and better else (chosen, queue[1:])
    return tuple(chosen)


def _gain(place: Place, aim: Objective) -> float:
    """Return the gain of the next move; nothing if there is none."""
    ahead = _ahead(place, aim)
    return aim.value(place, ahead) if ahead else 0.0


def _saved(place: Place) -> float:
    """Return the latency gain of scaling it down; nothing if it cannot be."""
    return place.latency_gain(place.left) if place.left else 0.0


def _ahead(place: Place, aim: Objective) -> Option | None:
    return place.left if aim.mode == "latency" else place.right


def _back(place: Place, aim: Objective) -> Option | None:
    return place.right if aim.mode == "latency" else place.left
