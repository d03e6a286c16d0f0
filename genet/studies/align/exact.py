"""The same choice of widths solved exactly: an integer program with one option per place and one bounded sum.

Like the paper's own way it looks at the edges beside each width alone. Edges farther off would trade accuracy for latency: equal
parameters mean equal accuracy only as long as the shape of the network stays, not if early layers shrink and late ones grow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genet.studies.align.objective import Chosen, Objective, stay
from genet.studies.align.place import Place


def exact(places: Sequence[Place], aim: Objective) -> Chosen:
    """Return the options with the largest value within the bounds; every width stays if nothing is within them."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    pairs = [(index, option) for index, place in enumerate(places) for option in place.options]
    if not pairs:
        return ()
    values = np.array([aim.value(places[index], option) for index, option in pairs], float)
    room = np.array([aim.room(places[index], option) for index, option in pairs], float)
    scale = 1e-3 * (float(np.abs(room).max()) or 1.0)  # the solver's tolerance is absolute, a millionth: of a thousand here
    once = np.array([[float(index == row) for index, _ in pairs] for row in range(len(places))])
    found = milp(
        -values / (float(np.abs(values).max()) or 1.0),
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(once, 1, 1), LinearConstraint(room[None] / scale, aim.least / scale, aim.most / scale)],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return stay(places)
    taken = dict(pair for pair, share in zip(pairs, found.x, strict=True) if share > 0.5)
    return tuple(taken[index] for index in range(len(places)))
