"""Write a network in several formats, load each again and compare: a format that does not reproduce the network is not kept."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import torch

from genet.errors import ExportError, GenetError, StorageError, first_line
from genet.export.format import Format, Forward, TrainedModel
from genet.export.manifest import EVIDENCE_FILE, ExportedFormat, Exports
from genet.export.onnx_formats import ONNX, ONNX_FP16, ONNX_INT8
from genet.export.timm_form import CONFIG_FILE, TIMM
from genet.export.torch_formats import PT2, SAFETENSORS, STRING
from genet.models.weights import LABELS_FILE, NETWORK_FILE, WEIGHTS_FILE, read_labels, weights_bytes
from genet.progress import UNSEEN, Tracker
from genet.storage import digest, read_checked, remove_checked, write_checked, written_atomically
from genet.training.accuracy import top_k_accuracy

FORMATS = {each.name: each for each in (SAFETENSORS, TIMM, ONNX, ONNX_FP16, ONNX_INT8, PT2, STRING)}
BATCHES = (1, 7, 64)
PACKAGES = ("genet", "torch", "timm", "onnx", "onnxruntime")
CPU = torch.device("cpu")


def check_formats(names: Sequence[str]) -> None:
    """Raise GenetError for a name of no format."""
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            nearest = f"; nearest: {near[0]}" if near else ""
            raise GenetError(f"--format must be one of {', '.join(FORMATS)} (got {name}){nearest}")


def export(subject: TrainedModel, folder: Path, names: Sequence[str] = (), tracker: Tracker = UNSEEN) -> Exports:
    """Write the named formats, or all possible ones, into `folder`, completely or not at all.

    Earlier formats of this network stay, and so do files that no export wrote; if the images are others than before, formats are
    written again. The network's own format is always written.
    A format that raises or does not reproduce the network's logits is left out with the reason; if it was named, or is the
    network's own, that is a GenetError.
    """
    wanted = dict.fromkeys([SAFETENSORS.name, *(names or FORMATS)])
    check_formats(tuple(wanted))
    refusals = {name: why for name in wanted if (why := FORMATS[name].refuses(subject))}
    if names and refusals:
        raise GenetError("; ".join(f"the format {name} cannot be written: {why}" for name, why in refusals.items()))
    inputs = digest(f"{subject.network.name}/{subject.network}/{digest(weights_bytes(subject.module))}")
    known = _intact_exports(folder, inputs, subject)
    there = {each.format: each for each in known.exported} if known else {}
    kept = {name: each for name, each in there.items() if _is_current(each, subject)}
    failures = {name: known.left_out[name] for name in known.failed if name not in wanted} if known else {}
    if folder.is_file():
        raise GenetError(f"{folder} exists and is a file, expected a folder or nothing; move it away")
    missing = [FORMATS[name] for name in dict.fromkeys((*wanted, *there)) if name not in kept and name not in refusals]
    if known and not missing:
        return known
    with written_atomically(folder, _written_files(folder)) as temporary:
        for each in kept.values():
            for name in each.files:
                write_checked(temporary / name, read_checked(folder / name))
        for form in missing:
            tracker.now(form.name)
            try:
                kept[form.name] = _export_format(form, subject, temporary)
            except ExportError as fault:
                if form.name in names or form is SAFETENSORS:
                    raise
                failures[form.name] = str(fault)
            tracker.advance()
        left_out = {name: why for name, why in (*refusals.items(), *failures.items()) if name not in kept}
        exports = Exports(
            inputs=inputs,
            network=str(subject.network),
            exported=tuple(kept[name] for name in FORMATS if name in kept),
            left_out=left_out,
            failed=tuple(failures),
        )
        exports.save(temporary / EVIDENCE_FILE)
    return exports


def _intact_exports(folder: Path, inputs: str, subject: TrainedModel) -> Exports | None:
    """Return the intact formats of an earlier export of this very network, with the lines that load them now."""
    try:
        known = Exports.load(folder / EVIDENCE_FILE)
    except StorageError:
        return None
    named = any(LABELS_FILE in each.files for each in known.exported)
    if known.inputs != inputs or subject.labels != (read_labels(folder) if named else None):
        return None
    intact = (each for each in known.exported if _is_whole(each, folder))
    exported = tuple(each.model_copy(update={"loading": FORMATS[each.format].loading}) for each in intact)
    return known.model_copy(update={"exported": exported})


def _written_files(folder: Path) -> set[str]:
    """Return the files that exports wrote into a folder, by its evidence; without evidence, the files with their names."""
    try:
        found = {name for each in Exports.load(folder / EVIDENCE_FILE).exported for name in each.files}
    except StorageError:
        found = {LABELS_FILE, NETWORK_FILE, *(form.place for form in FORMATS.values())}
        found |= {WEIGHTS_FILE, f"{TIMM.place}/{CONFIG_FILE}", f"{TIMM.place}/{WEIGHTS_FILE}"}
    return {EVIDENCE_FILE, *found, *(f"{name}.sha256" for name in found)}


def _is_whole(each: ExportedFormat, folder: Path) -> bool:
    try:
        return all(digest(read_checked(folder / name)) == known for name, known in each.files.items())
    except StorageError:
        return False


def _is_current(each: ExportedFormat, subject: TrainedModel) -> bool:
    """Return whether a format was tested on the given images, if there are any and it can be."""
    return not subject.splits or not FORMATS[each.format].runs or each.source == subject.source


@torch.inference_mode()
def _export_format(form: Format, subject: TrainedModel, folder: Path) -> ExportedFormat:
    """Write one format, load it again, and hold its logits against the network's; ExportError if it fails, with no file left."""
    with _explained(form):
        files = form.files(subject)
    for name, data in files.items():
        write_checked(folder / name, data)
    test = subject.splits.test if subject.splits and form.runs else None
    try:
        with _explained(form):
            forward = form.forward(folder)
            errors = tuple(_relative_error(form, subject, forward, batch) for batch in BATCHES)
            accuracy = top_k_accuracy(forward, (1,), test, subject.network.input.resolution, CPU)[0] if test else None
    except ExportError:
        for name in files:
            remove_checked(folder / name)
            with suppress(OSError):  # removes timm's folder once it is empty
                (folder / name).parent.rmdir()
        raise
    return ExportedFormat(
        format=form.name,
        purpose=form.purpose,
        loading=form.loading,
        files={name: digest(data) for name, data in files.items()},
        batches=BATCHES,
        relative_error=errors,
        accuracy=accuracy,
        test_images=test.size if test else None,
        source=subject.source if test else None,
        packages=_packages(),
    )


def _packages() -> dict[str, str]:
    """Return the versions of the installed packages that write and compare."""
    found = {}
    for name in PACKAGES:
        with suppress(ImportError):
            found[name] = str(import_module(name).__version__)
    return found


@contextmanager
def _explained(form: Format) -> Iterator[None]:
    """Turn what a format's own code and other libraries raise into one sentence."""
    try:
        yield
    except GenetError as fault:
        raise ExportError(str(fault)) from None
    except ImportError as fault:
        raise ExportError(
            f"the format {form.name} needs the package {fault.name}, which cannot be imported; pip install {fault.name}"
        ) from None
    except Exception as fault:  # any error of an exporter or a runtime
        raise ExportError(
            f"writing the format {form.name} and loading it again failed ({first_line(fault)}); leave it out"
        ) from fault


def _relative_error(form: Format, subject: TrainedModel, forward: Forward, batch: int) -> float:
    images, wanted = subject.images_and_logits(batch)
    found = forward(images)
    same = found.shape == wanted.shape
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)) if same else math.inf
    if not error <= form.tolerance:
        raise ExportError(
            f"the logits of the exported {form.name} differ from the network's by {error:g} of the largest at batch {batch}, "
            f"expected at most {form.tolerance:g}"
        )
    return error
