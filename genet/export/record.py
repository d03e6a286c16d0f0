"""What an export leaves as evidence: which files there are, how far each is from the network, and how it is loaded."""

from __future__ import annotations

from genet.files import Derived, Record

EVIDENCE_FILE = "exports.json"


class Exported(Record):
    """One format that was written, loaded again and compared.

    `relative_error` is the largest difference between its logits and the network's over the largest logit, for every one of
    `batches`; `accuracy` its share of right answers on the test images, where that was asked. `loading` are lines of Python,
    with FOLDER for where it lies.
    """

    format: str
    purpose: str
    loading: str
    files: dict[str, str]  # name in the folder, and SHA-256
    batches: tuple[int, ...]
    relative_error: tuple[float, ...]
    accuracy: float | None


class Exports(Derived):
    """All formats in a folder, and why others are not there. `inputs` is the SHA-256 of the weights."""

    network: str
    test_images: int | None
    exported: tuple[Exported, ...]
    left_out: dict[str, str]
    packages: dict[str, str]  # that wrote them, with their versions
