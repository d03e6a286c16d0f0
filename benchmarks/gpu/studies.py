"""The studies of the two other papers on this device: alignment, the survey of utilization, folding; and serving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from align import EFFICIENTNETS, PRUNED, SCALED, TIMM, TOLERANCE, each_aligned, grown, is_finding, table_of
from serving import serve, table
from torch import nn

from genet.errors import EvidenceError, GenetError
from genet.storage import Journal, write_atomic
from gpu.bench import Bench, command

FOLDED = ("timm:resnet18", "timm:regnetx_002", "timm:gernet_s", "timm:efficientnet_b0", "timm:mobilenetv2_100", "timm:dla60x_c")
SERVED = "genet-large"
Answers = dict[str, dict[str, Any] | str]
SMALL_SERVED = "@16x3 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | XX k3 c8 s2 d1 | Conv k1 c8 | 10"


def align(bench: Bench) -> None:
    """Align pruned networks and ResNet-50, and grow EfficientNets, as in the tail-effect paper's tables 2 and 3.

    EvidenceError if one of them failed; the others are kept.
    """
    evidence = ("--evidence", str(bench.folder / "latency.jsonl"), "--device", str(bench.device))
    tolerance = ("--param-tolerance", str(TOLERANCE))
    journal = Journal(bench.folder / "align.jsonl")
    wanted: dict[str, Sequence[str]] = {each[-1]: (*each, "--batch", "128", *tolerance, *evidence) for each in PRUNED}
    wanted["resnet50"] = (TIMM[0], *bench.options(), *tolerance, "--evidence", str(bench.folder / "latency.jsonl"))
    # grown without evidence: every size is another network
    larger: dict[str, Sequence[str]] = {
        name: (name, *SCALED, "--runtime", "eager", "--device", str(bench.device)) for name in EFFICIENTNETS
    }
    if bench.small:
        wanted, larger = (
            {"little": ("gpu.studies:little", "--example", "1,3,8,8", "--batch", "2", "--param-tolerance", "0.5", *evidence)},
            {},
        )
    found: Answers = {}
    sizes: Answers = {}
    for asked, answers in ((wanted, found), (larger, sizes)):
        for name, arguments in asked.items():  # written down after each, for the next may be cut off
            answers |= each_aligned({name: arguments}, journal, _aligned)
            bench.give_back()
            lines = [
                "# Aligned",
                "",
                "Pruned ones in fp32 (TF32) at batch 128; resnet50 in fp16, channels_last; grown in eager mode.",
                "",
            ]
            lines += table_of(found, "measured")
            lines += [line for each, answer in sizes.items() for line in (grown(each, answer), "")]
            write_atomic(bench.folder / "align.md", "\n".join(lines).encode())
    failed = {name: why for name, why in (found | sizes).items() if isinstance(why, str) and not is_finding(why)}
    if failed:
        raise EvidenceError(f"aligning {', '.join(failed)} failed: {next(iter(failed.values()))}")


def little() -> nn.Sequential:
    """Return the least network that has a width to align."""
    convolutions = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def _aligned(arguments: Sequence[str]) -> dict[str, Any] | str:
    """Return what `genet align` answers, asked in this process; or the reason it gives for having no answer."""
    try:
        answer: dict[str, Any] = json.loads(command("align", *arguments, "--json").splitlines()[-1])
    except GenetError as fault:
        return str(fault)
    return answer


def survey(bench: Bench) -> None:
    """Survey the utilization paper's networks at the largest batch that fits, as far as the time goes."""
    wanted = (SMALL_SERVED,) if bench.small else ("--preset", "paper", "--largest-batch")
    files = [
        f"--{kind}={bench.folder / name}"
        for kind, name in (("csv", "survey.csv"), ("page", "survey.html"), ("plot", "survey.svg"))
    ]
    command("survey", *wanted, *bench.options(), f"--evidence={bench.folder / 'survey.jsonl'}", *files)


def fold(bench: Bench) -> None:
    """Fold four images into one, as in the utilization paper's section 3.3."""
    wanted = ("timm:test_byobnet", "--size", "32") if bench.small else FOLDED
    options = bench.options(batch=4 if bench.small else 256)
    said = command("fold", *wanted, *options, f"--plot={bench.folder / 'fold.svg'}", "--json")
    write_atomic(bench.folder / "fold.json", (json.dumps(json.loads(said.splitlines()[-1]), indent=2) + "\n").encode())


def serving(bench: Bench) -> None:
    """Serve one network by torch beside timm's own model of it."""
    serve_with(bench, ("eager", "cudagraph") if bench.cuda else ("eager",))


def serve_with(bench: Bench, runtimes: Sequence[str]) -> None:
    """Serve the network in these of torch's runtimes, with cuDNN's own choice of kernels, and write what was found."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        found = serve(SMALL_SERVED if bench.small else SERVED, bench.device, 2 if bench.small else 64, runtimes)
    found.save(bench.folder / "serving.json")
    write_atomic(bench.folder / "serving.md", table([found]).encode())
