"""Images per second of one network in every runtime, beside timm's own model of the same structure.

    python benchmarks/serving.py      minutes on two cores

Every work is timed by itself, in several rounds over all. timm's model is served in torch, compiled or not, in both memory
formats, and by ONNX Runtime from torch's exporter; ours in the same ways and as it is exported. Writes
benchmarks/results/serving/.
"""

from __future__ import annotations

import argparse
import copy
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from genet.arch.network import Network
from genet.config.reader import read_network
from genet.device import keep_memory, read_card
from genet.export.exports import export
from genet.export.format import TrainedModel, quiet
from genet.export.onnx_formats import FILES
from genet.export.timm_form import to_timm
from genet.export.torch_formats import PROGRAM_FILE, open_program
from genet.latency.timing.runtimes import onnx_work, prepare
from genet.latency.timing.stopwatch import TimedCall, Timing, measure_apart
from genet.models.blocks import fused
from genet.models.build import build
from genet.storage import Record, write_atomic
from genet.training.image_sets import TensorImages
from genet.training.splits import Splits

RESULTS = Path(__file__).parent / "results" / "serving"
NETWORKS = {  # and their batches
    "@32x3 | Conv k3 c16 s2 | XX k3 c48 s1 d1 | XX k3 c64 s2 d1 | BL k3 c128 s1 d2 r0.5 | DW k3 c96 s2 d1 r3 | Conv k1 c256 | "
    "10": 64,
    "genet-light": 16,
}

TORCH_RUNTIMES = {"cpu": ("eager", "compile"), "cuda": ("eager", "cudagraph", "compile")}


class Served(Record):
    """Milliseconds per batch by whose model and how it was served."""

    network: str
    device: str
    threads: int
    batch: int
    timings: dict[str, Timing]


def works_of(network: Network, images: Tensor, runtimes: Sequence[str]) -> dict[str, TimedCall]:
    """Ours and timm's with the same weights, each in these of torch's runtimes, and on a processor in ONNX Runtime too."""
    module = build(network).eval()
    model = to_timm(network).eval()
    model.load_state_dict(module.state_dict())
    last = images.contiguous(memory_format=torch.channels_last)
    works: dict[str, TimedCall] = {}
    for whose, one in (("genet", module), ("timm", model), ("genet, fused", fused(module))):
        one = one.to(images.device)
        like = copy.deepcopy(one).to(memory_format=torch.channels_last)
        for runtime in runtimes:
            works[f"{whose}: {runtime}"] = prepare(runtime, [(one, images)])[0]
            works[f"{whose}: {runtime}, channels_last"] = prepare(runtime, [(like, last)])[0]
    if images.device.type == "cuda":
        return works  # the files' runtime waits for the device, which the events of another do not see
    with torch.inference_mode(False), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        size, input_ = network.input.resolution, network.input
        random = TensorImages(torch.randn(64, input_.channels, size, size), torch.zeros(64, dtype=torch.long))
        export(TrainedModel(module, Splits(random, random, random)), Path(folder), ("onnx", "onnx-fp16", "onnx-int8", "pt2"))
        for name, file in FILES.items():
            works[f"genet: {name}"] = onnx_work((Path(folder) / file).read_bytes(), images)
        program = open_program((Path(folder) / PROGRAM_FILE).read_bytes(), PROGRAM_FILE).module()
        works["genet: pt2"] = prepare("eager", [(program, images)])[0]
        works["timm: onnx"] = onnx_work(_timms_onnx(model.to(memory_format=torch.contiguous_format), images), images)
    return works


def _timms_onnx(model: nn.Module, images: Tensor) -> bytes:
    """As timm's own export script does it: torch's exporter on the model as it is."""
    buffer = io.BytesIO()
    with quiet():
        torch.onnx.export(model, (images,), buffer, dynamo=False, input_names=["images"], output_names=["logits"])  # type: ignore[arg-type]
    return buffer.getvalue()


def table(found: list[Served]) -> str:
    """Images per second, with the ratio of the best of ours to the best of timm's."""
    lines = ["# The same network in every runtime, ours and timm's", ""]
    for served in found:
        speed = {name: 1e3 * served.batch / timing.median_ms for name, timing in served.timings.items()}
        ours = [name for name in speed if name.startswith("genet") and not name.endswith(("fp16", "int8"))]
        fp32 = max(ours, key=speed.__getitem__)
        theirs = max((name for name in speed if name.startswith("timm")), key=speed.__getitem__)
        lines += [
            f"`{served.network}`, {served.device}, {served.threads} threads, batch {served.batch}",
            "",
            "| served as | images/s | rounds spread by |",
            "|---|---|---|",
        ]
        order = sorted(speed, key=speed.__getitem__, reverse=True)
        lines += [f"| {name} | {speed[name]:,.0f} | {served.timings[name].spread:.1%} |" for name in order]
        ratio = speed[fp32] / speed[theirs]
        lines += ["", f"Best fp32 of ours over the best of timm's: **{ratio:.2f}** ({fp32} over {theirs}).", ""]
    return "\n".join(lines)


def serve(name: str, device: torch.device, batch: int, runtimes: Sequence[str] | None = None) -> Served:
    """Time one network in every runtime that is here, or in these of torch's alone."""
    network = Network.parse(name) if "|" in name else read_network(name)
    if device.type == "cpu":
        keep_memory()
    images = torch.randn(batch, *network.input.image, device=device)
    with torch.inference_mode():
        works = works_of(network, images, runtimes or TORCH_RUNTIMES[device.type])
        timings = {}
        for work, found in zip(works, measure_apart(list(works.values()), device), strict=True):
            if isinstance(found, Exception):
                raise found
            timings[work] = found
    return Served(
        network=str(network), device=read_card(device).name, threads=torch.get_num_threads(), batch=batch, timings=timings
    )


def main() -> None:
    """Time the networks at their batches and write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = []
    for number, (name, batch) in enumerate(NETWORKS.items()):
        found.append(serve(name, torch.device("cpu"), batch))
        found[-1].save(RESULTS / f"{number}.json")
        print(table(found[-1:]), flush=True)
    write_atomic(RESULTS / "table.md", table(found).encode())


if __name__ == "__main__":
    main()
