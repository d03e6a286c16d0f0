"""Write a network in several formats, load each again and compare: what does not reproduce the network is not kept."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from genet.errors import GenetError, StorageError
from genet.export.format import Answers, Format, Subject
from genet.export.onnx_formats import ONNX, ONNX_FP16, ONNX_INT8
from genet.export.record import EVIDENCE_FILE, Exported, Exports
from genet.export.timm_form import TIMM
from genet.export.torch_formats import PT2, SAFETENSORS, STRING
from genet.files import digest, write_checked, written_atomically
from genet.nets.data import ImageSet
from genet.nets.training import top
from genet.nets.weights import weights_bytes

FORMATS = {each.name: each for each in (SAFETENSORS, TIMM, ONNX, ONNX_FP16, ONNX_INT8, PT2, STRING)}
BATCHES = (1, 7, 64)
PACKAGES = ("genet", "torch", "timm", "onnx", "onnxruntime")
CPU = torch.device("cpu")


def check_formats(names: Sequence[str]) -> None:
    """GenetError for a name that no format has."""
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            nearest = f"; nearest: {near[0]}" if near else ""
            raise GenetError(f"--format must be one of {', '.join(FORMATS)} (got {name}){nearest}")


def export(
    subject: Subject,
    folder: Path,
    names: Sequence[str] = (),
    test: ImageSet | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> Exports:
    """Write the formats named, or all that can be, into `folder`, whole or not at all; those there of this very network stay.

    The network's own format is always among them. GenetError where one that is named cannot be written, or where one does
    not reproduce the network's logits.
    """
    wanted = dict.fromkeys([SAFETENSORS.name, *(names or FORMATS)])
    check_formats(tuple(wanted))
    refusals = {name: why for name in wanted if (why := FORMATS[name].refuses(subject))}
    if names and refusals:
        raise GenetError("; ".join(f"the format {name} cannot be written: {why}" for name, why in refusals.items()))
    weights = digest(weights_bytes(subject.module))
    kept = _still_there(folder, weights, test)
    missing = [FORMATS[name] for name in wanted if name not in kept and name not in refusals]
    if not missing:
        return Exports.load(folder / EVIDENCE_FILE)
    with written_atomically(folder) as temporary:
        for each in kept.values():
            _copy(each, folder, temporary)
        for form in missing:
            kept[form.name] = _exported(form, subject, temporary, test)
            done(form.name)
        exports = Exports(
            inputs=weights,
            network=str(subject.module.network),
            test_images=test.size if test else None,
            exported=tuple(kept[name] for name in FORMATS if name in kept),
            left_out=refusals,
            packages={name: version(name) for name in PACKAGES},
        )
        exports.save(temporary / EVIDENCE_FILE)
    return exports


def _still_there(folder: Path, weights: str, test: ImageSet | None) -> dict[str, Exported]:
    """What an earlier export left whole, of these weights and compared on as many images."""
    try:
        known = Exports.load(folder / EVIDENCE_FILE)
    except StorageError:
        return {}
    if known.inputs != weights or known.test_images != (test.size if test else None):
        return {}
    return {each.format: each for each in known.exported if _is_whole(each, folder)}


def _is_whole(each: Exported, folder: Path) -> bool:
    return all((folder / name).exists() and digest((folder / name).read_bytes()) == known for name, known in each.files.items())


def _copy(each: Exported, folder: Path, temporary: Path) -> None:
    for name in each.files:
        write_checked(temporary / name, (folder / name).read_bytes())


@torch.inference_mode()
def _exported(form: Format, subject: Subject, folder: Path, test: ImageSet | None) -> Exported:
    """Write one format, load it again, and hold its logits against the network's."""
    files = form.files(subject)
    for name, data in files.items():
        write_checked(folder / name, data)
    answers = form.answers(folder)
    errors = tuple(_relative_error(form, subject, answers, batch) for batch in BATCHES)
    size = subject.module.network.input.resolution
    return Exported(
        format=form.name,
        purpose=form.purpose,
        loading=form.loading,
        files={name: digest(data) for name, data in files.items()},
        batches=BATCHES,
        relative_error=errors,
        accuracy=top(answers, (1,), test, size, CPU)[0] if test and form.judged else None,
    )


def _relative_error(form: Format, subject: Subject, answers: Answers, batch: int) -> float:
    images = subject.images(batch)
    wanted, found = subject.module(images), answers(images)
    error = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
    allowed = math.inf if form.tolerance is None else form.tolerance
    if not (found.shape == wanted.shape and math.isfinite(error) and error <= allowed):
        law = "finite logits" if form.tolerance is None else f"the network's logits within {form.tolerance:g} of the largest"
        raise GenetError(f"the exported {form.name} must give {law}, and differs by {error:g} at batch {batch}")
    return error
