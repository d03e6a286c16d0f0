"""The evidence of an export: its files, the difference of each from the network, and the way to load it."""

from __future__ import annotations

import json
import re

from genet.names import counted
from genet.storage import Derived, Record

EVIDENCE_FILE = "exports.json"


class FormatLatency(Record):
    """Milliseconds per batch of one format in its own runtime, or why it has none: `lacks` names a package that was missing.

    `spread` is that of the rounds, or of the repeats if there was time for one round alone.
    """

    format: str
    runtime: str
    ms: float | None = None
    spread: float | None = None
    failure: str | None = None
    lacks: str | None = None


class ExportLatencies(Record):
    """Latencies of an export's formats on one device, with so many images at a time: torch's in rounds, then ONNX Runtime's."""

    device: str
    threads: int | None  # of a processor
    batch: int
    served: tuple[FormatLatency, ...]

    @property
    def setting(self) -> str:
        """Name everything that the latencies depend on besides the formats."""
        threads = f", {counted(self.threads, 'thread')}" if self.threads else ""
        return f"{self.device}{threads}, batch {self.batch}, fp32 images, each format as it is loaded"

    def of(self, form: str) -> FormatLatency | None:
        """Return what was measured of a format, or why nothing was; None for a structure alone."""
        return next((one for one in self.served if one.format == form), None)

    def ms_per_image(self, form: str) -> float | None:
        """Return a format's latency; None if it was not measured."""
        found = self.of(form)
        return None if found is None or found.ms is None else found.ms / self.batch


class ExportedFormat(Record):
    """One format that was written, loaded again and compared.

    `relative_error` is the largest difference between its logits and the network's over the largest logit, for every one of
    `batches`; `accuracy` its share of right answers on the test images, if that was measured. `source` names the images that
    it was calibrated or tested with. `loading` holds lines of Python as `Exports.loading` fills them in.
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

    `serving` holds their latencies; an earlier version measured none.

    Some formats are left out because the network or the given images do not allow them; the `failed` ones raised or did not
    reproduce the network.
    """

    network: str
    exported: tuple[ExportedFormat, ...]
    left_out: dict[str, str]
    failed: tuple[str, ...] = ()
    serving: ExportLatencies | None = None

    def loading(self, form: ExportedFormat, folder: str) -> str:
        """Return the lines of Python that load a format from this folder and run it as it ran when its latency was measured.

        THREADS stands for the processor's threads in a format's own lines, 0 for as many as the runtime likes if no latency is
        known, and PROVIDERS for the devices of ONNX Runtime, the first choice first.
        """
        served = self.serving.of(form.format) if self.serving else None
        timed = self.serving if served and served.ms is not None else None
        on_gpu = timed is not None and timed.threads is None
        providers = ["CUDAExecutionProvider"] * on_gpu + ["CPUExecutionProvider"]
        values = {"FOLDER": folder, "THREADS": (timed and timed.threads) or 0, "PROVIDERS": json.dumps(providers)}
        return re.sub("|".join(values), lambda found: str(values[found[0]]), form.loading)

    @property
    def fastest(self) -> tuple[ExportedFormat, FormatLatency] | None:
        """The format with the least latency, with it; the first of several whose latencies differ by less than its spread.

        None if none was timed.
        """
        served = {form.format: self.serving.of(form.format) for form in self.exported} if self.serving else {}
        timed = [(form, found) for form in self.exported if (found := served.get(form.format)) and found.ms is not None]
        least = min((found for _, found in timed), key=lambda each: each.ms or 0.0, default=None)
        limit = (least.ms or 0.0) * (1 + (least.spread or 0.0)) if least else 0.0
        return next((each for each in timed if (each[1].ms or 0.0) <= limit), None)

    @property
    def failures(self) -> tuple[str, ...]:
        """Say why each format that failed is left out, a line each."""
        return tuple(f"{name} is left out: {self.left_out[name]}" for name in self.failed)
