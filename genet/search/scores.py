"""What full trainings reached, and how sure it is that one network is better than another.

An accuracy depends on the choice of the images that judge it, and on the luck of the training. Trainings of one network hold out
different parts of the images if they can, so that more images judge it. Two networks are compared image by image: images that
both classify alike tell nothing of which is better.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

import numpy as np

from genet.storage import Record


class Score(Record):
    """What a network reached in its full trainings; accuracies are 0 to 1, on so many images.

    Per training, `parts` tells which part of the images was held out, and `right` packs which of them were classified correctly;
    empty if that is not known. Without `parts` all trainings held out the same images.
    """

    held_out: tuple[float, ...]
    test: tuple[float, ...]
    held_out_images: int
    test_images: int
    parts: tuple[int, ...] = ()
    right: tuple[str, ...] = ()
    inherited: bool = False

    @property
    def part_of_each(self) -> tuple[int, ...]:
        """The part that each training held out."""
        return self.parts or (0,) * len(self.held_out)


def packed_answers(right: np.ndarray) -> str:
    """Return which images are classified correctly, (N,), as text."""
    return base64.b64encode(np.packbits(right.astype(bool)).tobytes()).decode()


def _answers(score: Score) -> dict[int, np.ndarray]:
    """Return per part the share of trainings that classify each image correctly, (N,), as far as it is known."""
    known: dict[int, list[np.ndarray]] = {}
    for part, packed in zip(score.part_of_each, score.right, strict=False):
        if packed:
            bits = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
            known.setdefault(part, []).append(np.unpackbits(bits, count=score.held_out_images))
    return {part: np.mean(answers, axis=0) for part, answers in known.items()}


def standard_error(accuracies: Sequence[float], images: int, variance: float) -> float:
    """Return the standard error of a mean accuracy over trainings, judged on so many different images.

    `variance` is that between trainings.
    """
    mean = min(1.0, max(0.0, fmean(accuracies)))
    spread = max(mean * (1 - mean), 1 / (images + 2))  # none right, or none wrong, of few images is no certainty
    return math.sqrt(spread / images + variance / len(accuracies))


class Comparison:
    """Networks compared on the images held out for the search, whichever part each training held out."""

    def __init__(self, scores: Mapping[str, Score]) -> None:
        self._scores = scores
        self._answers = {network: _answers(score) for network, score in scores.items()}
        self._ease = _ease(scores)
        self._variance = self._between_trainings()

    def accuracy(self, network: str) -> float:
        """Return the mean accuracy of a network, freed of how much easier its parts of the images are than the first one.

        All are judged on the first: of a network that was trained once it is the accuracy there.
        """
        return min(1.0, max(0.0, fmean(self._freed(network))))

    def error(self, network: str) -> float:
        """Return the standard error of this accuracy, by the choice of the images and by the training."""
        score = self._scores[network]
        images = score.held_out_images * len(set(score.part_of_each))
        return standard_error(self._freed(network), images, self._variance)

    def lead(self, one: str, other: str) -> tuple[float, float]:
        """Return by how much one network is more accurate than another, and the standard error of that.

        Images count by how the two differ on them, in the parts that judged both. If that is not known, the error is that of two
        accuracies on images of their own, which is larger.
        """
        lead, ours, theirs = self.accuracy(one) - self.accuracy(other), self._answers[one], self._answers[other]
        shared = ours.keys() & theirs.keys()
        if not shared:
            return lead, math.hypot(self.error(one), self.error(other))
        images = sum(_variance_of_mean(ours[part] - theirs[part]) for part in shared) / len(shared) ** 2
        trained = (sum(part in shared for part in self._scores[network].part_of_each) for network in (one, other))
        return lead, math.sqrt(images + sum(self._variance / count for count in trained))

    def _freed(self, network: str) -> list[float]:
        score = self._scores[network]
        return [reached - self._ease[part] for reached, part in zip(score.held_out, score.part_of_each, strict=True)]

    def _between_trainings(self) -> float:
        """Return the variance between trainings of a network, less the part that other images explain; 0 if none has two."""
        freed = {network: self._freed(network) for network, score in self._scores.items() if len(score.held_out) > 1}
        repeats = {network: len(reached) - 1 for network, reached in freed.items()}
        freedom = sum(repeats.values()) - (len(self._ease) - 1)
        if not freed or freedom < 1:
            return 0.0
        squares = sum(variance(reached) * repeats[network] for network, reached in freed.items())
        on_others = sum(count for network, count in repeats.items() if len(set(self._scores[network].part_of_each)) > 1)
        on_others = max(0, on_others - (len(self._ease) - 1))
        return max(0.0, (squares - self._of_images() * on_others) / freedom)

    def _of_images(self) -> float:
        """Return the mean variance of an accuracy by the choice of a part's images, freed of how hard each is; 0 if not known."""
        found = []
        for part in self._ease:
            judged = [answers[part] for answers in self._answers.values() if part in answers]
            if len(judged) > 1:
                common, scale = np.mean(judged, axis=0), len(judged) / (len(judged) - 1)
                found += [scale * _variance_of_mean(answers - common) for answers in judged]
        return fmean(found) if found else 0.0


def _variance_of_mean(values: np.ndarray) -> float:
    """Return the squared standard error of a mean; values that all agree are no certainty."""
    return max(float(values.var()), 1 / (len(values) + 2)) / len(values)


def _ease(scores: Mapping[str, Score]) -> dict[int, float]:
    """Return per part of the images how much higher accuracies on it are than on the first, by the networks judged on several.

    Least squares of accuracy = network + part.
    """
    rows = [
        (place, part, reached)
        for place, score in enumerate(scores.values())
        for part, reached in zip(score.part_of_each, score.held_out, strict=True)
    ]
    parts = sorted({part for _, part, _ in rows})
    if len(parts) < 2:
        return dict.fromkeys(parts, 0.0)
    design = np.zeros((len(rows) + 1, len(scores) + len(parts)))
    reached = np.array([each for *_, each in rows] + [0.0])
    for row, (place, part, _) in enumerate(rows):
        design[row, [place, len(scores) + parts.index(part)]] = 1
    design[-1, len(scores)] = 1  # the first part's effect is 0
    effects = np.linalg.lstsq(design, reached, rcond=None)[0][len(scores) :]
    return dict(zip(parts, effects.tolist(), strict=True))
