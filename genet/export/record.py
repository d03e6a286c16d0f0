"""What an export leaves as evidence: which files there are, how far each is from the network, and how it is loaded."""

from __future__ import annotations

from genet.storage import Derived, Record

EVIDENCE_FILE = "exports.json"


class Exported(Record):
    """One format that was written, loaded again and compared.

    `relative_error` is the largest difference between its logits and the network's over the largest logit, for every one of
    `batches`; `accuracy` its share of right answers on the test images, where that was asked. `source` names the images that
    it was calibrated or tested with. `loading` are lines of Python, with FOLDER for where it lies.
    """

    format: str
    purpose: str
    loading: str
    files: dict[str, str]  # name in the folder, and SHA-256
    batches: tuple[int, ...]
    relative_error: tuple[float, ...]
    accuracy: float | None
    test_images: int | None
    source: str | None
    packages: dict[str, str]  # that wrote it, with their versions


class Exports(Derived):
    """All formats in a folder, and why others are not there. `inputs` names the network and its weights.

    Of those left out some cannot be had of the network and what was given; those that `failed` were tried, and raised or did not
    reproduce the network.
    """

    network: str
    exported: tuple[Exported, ...]
    left_out: dict[str, str]
    failed: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Say why each format that failed is left out, a line each."""
        return tuple(f"{name} is left out: {self.left_out[name]}" for name in self.failed)
