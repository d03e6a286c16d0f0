"""The evidence of an export: its files, the difference of each from the network, and the way to load it."""

from __future__ import annotations

from genet.storage import Derived, Record

EVIDENCE_FILE = "exports.json"


class Exported(Record):
    """One format that was written, loaded again and compared.

    `relative_error` is the largest difference between its logits and the network's over the largest logit, for every one of
    `batches`; `accuracy` its share of right answers on the test images, if that was measured. `source` names the images that
    it was calibrated or tested with. `loading` holds lines of Python, with FOLDER in place of its path.
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

    Some formats are left out because the network or the given images do not allow them; the `failed` ones raised or did not
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
