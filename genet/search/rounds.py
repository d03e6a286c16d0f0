"""Which whole networks to train next: a spread start near the budget, then rounds by Thompson sampling.

A round asks the surrogate for some worlds that the trainings so far leave possible, and trains the network that is best in each:
so a network is tried about as often as it may be the best one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genet.search.surrogate import Pool, Surrogate, fit_surrogate, score

START = 0.5  # share of the trainings that are spread before anything is known
LEAST = 6  # of them
BOLDNESS = 0.5  # scale of the posterior deviation in a draw; below 1 it prefers what is known to be good, for rounds are few
AT_ONCE = 2  # trainings of a round
NEAR = 0.75  # of the budget: cheaper networks tell little about those that are selected
CONSIDERED = 400  # networks that worlds are drawn for: those that two standard errors could make the best
SPREAD_OVER = 800  # networks that the start is chosen from

Train = Callable[[np.ndarray], np.ndarray]  # accuracies, 0 to 1, of rows of a pool


def search(pool: Pool, costs: np.ndarray, budget: float, train: Train, count: int, draw: np.random.Generator) -> int:
    """Return the row of the network within the budget that is believed to be best after so many trainings.

    `costs` are in the unit of the budget. ValueError if no network is within it.
    """
    within = np.flatnonzero(costs <= budget)
    if not len(within):
        raise ValueError(f"searching within {budget} failed: got {costs.min()} at least, expected a network within it")
    near = within[costs[within] >= NEAR * budget]
    rows = list(spread(pool, near if len(near) else within, min(count, max(LEAST, round(START * count))), draw))
    scores = list(score(train(np.array(rows))))
    while len(rows) < count:
        found = promising(fit_surrogate(pool, rows, scores), within, min(AT_ONCE, count - len(rows)), draw)
        rows += list(found)
        scores += list(score(train(found)))
    return best(fit_surrogate(pool, rows, scores), within)


def spread(pool: Pool, rows: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Return networks that tell most about all effects together: a greedy D-optimal design."""
    rows = draw.choice(rows, min(SPREAD_OVER, len(rows)), replace=False)
    effects = np.column_stack([pool.size[rows], pool.local[rows] / np.sqrt(pool.local.shape[1])])
    unknown, chosen = 4 * np.eye(effects.shape[1]), list[int]()
    for _ in range(min(count, len(rows))):
        told = np.einsum("ij,jk,ik->i", effects, unknown, effects)
        told[chosen] = -1.0
        chosen.append(int(told.argmax()))
        step = unknown @ effects[chosen[-1]]
        unknown -= np.outer(step, step) / (1 + effects[chosen[-1]] @ step)
    return np.asarray(rows[chosen])


def promising(surrogate: Surrogate, rows: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Draw `count` times from the surrogate's posterior; return the best network of each draw, which may repeat."""
    mean, error = surrogate.predict(rows)
    considered = rows[np.argsort(-(mean + 2 * error))[:CONSIDERED]]
    return np.array([considered[surrogate.draw(considered, draw, BOLDNESS).argmax()] for _ in range(count)])


def best(surrogate: Surrogate, rows: np.ndarray) -> int:
    """Return the network that is expected to be best."""
    mean, _ = surrogate.predict(rows)
    return int(rows[mean.argmax()])


def single_changes(pool: Pool, centre: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """Return networks that differ least from one, as single trials do of the MasterNet (GENet paper, section 4.2)."""
    changed = (np.abs(pool.local - pool.local[centre]) > 1e-9).sum(1)
    nearest = np.argsort(changed + draw.random(len(pool)) / 2)
    return np.asarray(nearest[nearest != centre][:count])


def race(rows: np.ndarray, accuracies: np.ndarray, train_longer: Train, finalists: int) -> int:
    """Return among the networks that read best the one that is best when they are trained longer."""
    last = rows[np.argsort(-accuracies)[:finalists]]
    return int(last[train_longer(last).argmax()])
