"""What aligning widths to the device's staircase gives (tail-effect paper, section 5).

    python benchmarks/align.py wave --data FOLDER     the wave model against measured V100 convolutions
    python benchmarks/align.py solvers                the paper's greedy choice against the exact one, 100 random instances
    python benchmarks/align.py estimates              pruned and timm networks at the analytic V100 and T4, in minutes
    python benchmarks/align.py devices                the paper's at the analytic Titan V, P6000 and Jetson Nano, in minutes
    python benchmarks/align.py here                   as estimates, measured on this machine: about an hour on two cores
    python benchmarks/align.py cifar --data CIFAR10   ResNet-56 dense, pruned, and pruned and aligned, all trained alike: hours

Without a name all parts that need no data are run. Each writes benchmarks/results/align/PART.md; `here` and `cifar` go on where
they were.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from trials import few_images

from genet.arch.external import ExternalModel
from genet.arch.layers import Conv
from genet.config.options import checked_measure
from genet.config.reader import to_yaml
from genet.latency.estimate.analytic import estimate
from genet.latency.estimate.gpus import find_gpu
from genet.latency.naming import structure_named
from genet.latency.ops import conv_op
from genet.latency.timing.meter import meter_of
from genet.latency.workload import read_workload
from genet.models.external import build_structure, structure_of
from genet.models.weights import NETWORK_FILE, WEIGHTS_FILE, load, save_weights
from genet.storage import Journal, digest, write_atomic
from genet.studies.align.criteria import kept_channels, norms
from genet.studies.align.module_subject import ModuleSubject, cut_to
from genet.studies.align.objective import Objective, exact, greedy
from genet.studies.align.place import Option, Place
from genet.studies.align.study import Ratio, ratio_of
from genet.studies.align.subject import Movable

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "align"
WORK = Path("runs") / "align-benchmark"
EVIDENCE = ("--evidence", str(WORK / "latency.jsonl"))
REAL = "v100_tensorrt_fp16_conv.csv.gz"
SIZES = (8, 16, 32, 64, 128, math.inf)  # output sizes are told in these bins
STEP = 0.1  # of the latency: a rise that counts as a step where the widths of a table mostly double
SMALL = ("--example", "1,3,32,32")
PRUNED = tuple(
    (f"genet.models.cifar:{network}", *SMALL, "--pruned", widths)
    for network, widths in (
        ("vgg16", "hrank-vgg16"),
        ("resnet56", "hrank-resnet56"),
        ("resnet56", "sfp30-resnet56"),
        ("resnet56", "sfp40-resnet56"),
    )
)
EFFICIENTNETS = tuple(f"timm:efficientnet_b{size}" for size in range(3))
TIMM = ("timm:resnet50", "timm:mobilenetv2_100", "timm:gernet_m", "timm:efficientnet_b0")
TOLERANCE = 0.05
FINDINGS = ("nothing to gain", "was certain to", "all sizes tried were slower")  # reasons with these words are answers
SCALED = ("--mode", "accuracy", "--scale", "width,resolution", "--batch", "1")


def wave(data: Path) -> list[str]:
    """Equation 3 with tiles for blocks: of the steps between measured widths, how many it has, and how many it makes up."""
    curves: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    with gzip.open(data / REAL, "rt") as file:
        for row in csv.DictReader(file):
            if row["conv"] != "Depthwise" and row["add_fused"] == "0":
                key = (row["batch"], row["in_channels"], row["in_size"], row["kernel"], row["stride"])
                curves[key][int(row["out_channels"])] = float(row["latency_ms"])
    counts: dict[float, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    gpu = find_gpu("v100")
    for (batch, in_width, size, kernel, stride), curve in curves.items():
        if len(curve) < 6:
            continue
        conv = Conv("conv", int(in_width), 0, int(kernel), int(stride), 1, int(size))

        def modelled(width: int, conv: Conv = conv, batch: int = int(batch)) -> float:
            one = Conv(conv.name, conv.in_width, width, conv.kernel, conv.stride, 1, conv.size)
            return estimate([conv_op(one, "conv")], gpu, batch, "fp16", "tensorrt").device_ms

        for narrow, wide in pairwise(sorted(curve)):
            real = curve[wide] > (1 + STEP) * curve[narrow]
            said = modelled(wide) > (1 + STEP) * modelled(narrow)
            count = counts[next(size for size in SIZES if conv.out_size <= size)]
            for place, happened in enumerate((real, real and said, said and not real, not real)):
                count[place] += happened
    lines = [
        "# The wave model against measured V100 convolutions",
        "",
        "Measured TensorRT FP16 convolutions of a V100 (75,859 rows, public data), those of six widths or more, batch 1 to 128.",
        f"A step is a rise of over {STEP:.0%} from one measured width to the next; the widths mostly double.",
        "",
        "| output size | steps measured | of them in the model | flat intervals | of them steps in the model |",
        "|---|---|---|---|---|",
    ]
    for largest, (steps, hit, false, flat) in sorted(counts.items()):
        told = f"over {SIZES[-2]}" if largest == math.inf else f"up to {largest}"
        lines.append(f"| {told} | {steps} | {_share(hit, steps)} | {flat} | {_share(false, flat)} |")
    steps, hit, false, flat = map(sum, zip(*counts.values(), strict=True))
    return [*lines, f"| all | {steps} | {_share(hit, steps)} | {flat} | {_share(false, flat)} |", ""]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "n/a"


def random_places(draw: np.random.Generator) -> list[Place]:
    """Ten to sixty layers of made-up stairs: a left edge saves a wave, a right edge costs the memory traffic alone."""
    found = []
    for index in range(int(draw.integers(10, 61))):
        width, wave_ms = int(draw.integers(32, 513)), float(draw.lognormal(-2, 1))
        per_channel = float(draw.lognormal(5, 1))
        down, up = int(width * draw.uniform(0.02, 0.3)), int(width * draw.uniform(0.02, 0.3))
        now = Option(width=width, ms=10 * wave_ms, parameters=10_000_000)
        left = Option(width=width - down, ms=now.ms - wave_ms, parameters=now.parameters - int(down * per_channel))
        right = Option(width=width + up, ms=now.ms + 0.1 * wave_ms, parameters=now.parameters + int(up * per_channel))
        found.append(Place(name=str(index), layers=(str(index),), now=now, left=left, right=right, where="inside"))
    return found


def solvers() -> list[str]:
    """How far the greedy choice is from the exact one."""
    draw = np.random.default_rng(0)
    shares: dict[str, list[float]] = {"latency": [], "accuracy": []}
    for _ in range(100):
        places = random_places(draw)
        total = sum(place.left.parameters - place.now.parameters for place in places if place.left)
        for objective in (Objective("latency", 0.1 * total, -0.1 * total), Objective("accuracy", 0.0)):
            best = objective.total_value(places, exact(places, objective))
            shares[objective.mode].append(objective.total_value(places, greedy(places, objective)) / best if best else 1.0)
    lines = [
        "# The greedy choice against the exact one",
        "",
        "100 random instances of 10 to 60 layers with made-up stairs; in latency mode the parameters may move by a tenth of what",
        "all left edges together would take. Share of the optimum that the greedy choice of algorithm 2 reaches:",
        "",
        "| mode | median | mean | worst | equal to the optimum |",
        "|---|---|---|---|---|",
    ]
    for mode, found in shares.items():
        equal = sum(share > 1 - 1e-6 for share in found)
        lines.append(f"| {mode} | {median(found):.1%} | {fmean(found):.1%} | {min(found):.1%} | {equal} of 100 |")
    return [*lines, ""]


def aligned(arguments: Sequence[str]) -> dict[str, Any] | str:
    """What `genet align` answers; or the reason it gives for having no answer."""
    command = [sys.executable, "-m", "genet", "align", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def narrowed_alike(arguments: Sequence[str], parameters: int) -> Ratio:
    """What shrinking alone gives: all widths that may move by one factor, to as many parameters, against the network as it is.

    Widths that are multiples of 8, 4 or 2 stay such, as in a network that is built with a width factor.
    """
    name, *rest = arguments
    given = {option.removeprefix("--"): value for option, value in zip(rest[::2], rest[1::2], strict=True)}
    structure = structure_named(name, int(given["size"]) if "size" in given else None, given.get("example"))
    assert isinstance(structure, ExternalModel)
    subject = ModuleSubject(structure, build_structure(structure))
    subject = cut_to(subject, given["pruned"]) if "pruned" in given else subject

    def scaled(place: Movable, factor: float) -> int:
        step = math.gcd(place.width, 8)
        width = step * max(1, round(factor * place.width / step))
        return min(width, place.widest or width)

    def widths(factor: float) -> dict[str, int]:
        return {place.name: scaled(place, factor) for place in subject.movable}

    low, high = 0.5, 1.5
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if subject.parameters(widths(middle)) < parameters else (low, middle)
    options = ("device", "dtype", "runtime", "batch", "memory-format")
    measure = {option.replace("-", "_"): given[option] for option in options if option in given}
    meter = meter_of(checked_measure({"device": "auto"} | measure))
    return ratio_of(subject.workload(widths(high)), subject.workload({}), meter)


def each_aligned(
    wanted: dict[str, Sequence[str]], journal: Journal, ask: Callable[[Sequence[str]], dict[str, Any] | str] = aligned
) -> dict[str, dict[str, Any] | str]:
    """Return an answer for each name; those that the journal holds for the same command are not asked for again.

    A reason for having none is kept only if it tells of the network: what failed is tried again.
    """
    known = {_question(record["command"]): record["answer"] for record in journal.read().records}
    for name, command in wanted.items():
        if _question(command) not in known:
            answer = ask(command)
            if not isinstance(answer, str) and "--scale" not in command:
                answer["alike"] = narrowed_alike(command, answer["parameters"][1]).model_dump(mode="json")
            known[_question(command)] = answer
            if not isinstance(answer, str) or is_finding(answer):
                journal.append({"command": list(_question(command)), "answer": answer})
            print(name, "done", flush=True)
    return {name: known[_question(command)] for name, command in wanted.items()}


def _question(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command without the place of its latencies, which may move."""
    if EVIDENCE[0] not in command:
        return tuple(command)
    at = command.index(EVIDENCE[0])
    return (*command[:at], *command[at + 2 :])


def is_finding(reason: str) -> bool:
    """Return whether the reason for having no answer tells of the network, not of something that failed."""
    return any(words in reason for words in FINDINGS)


def table_of(found: dict[str, dict[str, Any] | str], how: str) -> list[str]:
    """One line per network: latency and parameters before and after, and how far the greedy choice is from the exact one."""
    lines = [
        f"| network | {how} ms per batch | after | change | narrowed alike | parameters, million | after | layers by themselves "
        "| exact choice |",
        "|---" * 9 + "|",
    ]
    for name, answer in found.items():
        if isinstance(answer, str):
            lines.append(f"| {name} | {answer.split(': ', 1)[-1]} | | | | | | | |")
            continue
        ratio, (before, after) = Ratio.model_validate(answer["measured"]), answer["parameters"]
        cells = [
            f"{ratio.before_ms:.3f}",
            f"{ratio.ms:.3f}",
            _change(ratio),
            _change(Ratio.model_validate(answer["alike"])),
            f"{before / 1e6:.3f}",
            f"{after / 1e6:.3f} ({answer['parameter_gain']:+.1%})",
            f"{answer['predicted'] - 1:+.1%}",
            f"{answer['optimum'] - 1:+.1%}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    changes = [0.0 if isinstance(answer, str) else answer["ratio"] - 1 for answer in found.values()]
    beyond = [0.0 if isinstance(answer, str) else answer["ratio"] - _mean(answer["alike"]) for answer in found.values()]
    return [
        *lines,
        "",
        f"Median of {len(changes)}: {median(changes):+.1%}; what gains nothing counts as 0.",
        "Narrowed alike: all widths by one factor, to as many parameters as aligned; "
        f"aligned takes {-median(beyond):.1%} of the latency less, in the median.",
        "",
    ]


def _mean(ratio: dict[str, Any]) -> float:
    return Ratio.model_validate(ratio).mean


def _change(ratio: Ratio) -> str:
    return f"{ratio.mean - 1:+.1%}" + (f" ± {ratio.error:.1%}" if ratio.error else "")


def networks(batch: int, timm: Sequence[str], *arguments: str) -> dict[str, Sequence[str]]:
    """The pruned networks at a batch, and timm's with their own arguments."""
    pruned: dict[str, Sequence[str]] = {each[-1]: (*each, "--batch", str(batch), *arguments) for each in PRUNED}
    return pruned | {name.split()[0].removeprefix("timm:"): (*name.split(), *arguments) for name in timm}


def grown(name: str, answer: dict[str, Any] | str) -> str:
    """Return in one line what growing width and resolution at equal latency gives."""
    if isinstance(answer, str):
        return f"{name} at batch 1: {answer.split(': ', 1)[-1]}."
    best = answer["best"]
    times = best["parameters"] / answer["parameters"], best["macs"] / answer["macs"]
    return (
        f"{name} at batch 1, width and resolution grown at equal latency: {answer['resolution']} -> {best['resolution']} pixels, "
        f"{times[0]:.2f} times the parameters, {times[1]:.2f} times the MACs."
    )


def estimates() -> list[str]:
    """At the analytic V100 and T4."""
    lines = [
        "# Aligned at the analytic V100 and T4",
        "",
        "Estimates, not measurements: FP16, CUDA graphs; pruned networks at batch 128 and 32x32 pixels, as in table 2,",
        f"timm's at batch 64 and their own size. Latency mode, greedy, parameters within {TOLERANCE:.0%}.",
        "",
    ]
    for gpu in ("v100", "t4"):
        at = ("--device", f"estimate:{gpu}", "--dtype", "fp16", "--runtime", "cudagraph", "--param-tolerance", str(TOLERANCE))
        wanted = networks(128, [f"{name} --batch 64" for name in TIMM], *at)
        found = each_aligned(wanted, Journal(WORK / "estimates.jsonl"))
        lines += [f"## {gpu.upper()}", "", *table_of(found, "estimated")]
        scaled = each_aligned({"grown": (TIMM[3], *SCALED, "--device", f"estimate:{gpu}")}, Journal(WORK / "estimates.jsonl"))
        lines += [grown("efficientnet_b0, eager", scaled["grown"]), ""]
    return lines


def devices() -> list[str]:
    """At the analytic GPUs of the paper, in fp32 as there: tables 2 to 5."""
    journal = Journal(WORK / "devices.jsonl")
    lines = [
        "# Aligned at the paper's GPUs",
        "",
        "Estimates, not measurements: FP32, CUDA graphs; pruned networks at batch 128 and 32x32 pixels, EfficientNets in eager",
        f"mode at batch 1 and their own size. Latency mode, greedy, parameters within {TOLERANCE:.0%}.",
        "",
    ]
    for gpu in ("titan-v", "p6000", "jetson-nano"):
        at = ("--device", f"estimate:{gpu}")
        pruned = PRUNED if gpu == "titan-v" else PRUNED[:2]  # tables 4 and 5 have HRank's alone
        settled = ("--batch", "128", *at, "--runtime", "cudagraph", "--param-tolerance", str(TOLERANCE))
        wanted: dict[str, Sequence[str]] = {each[-1]: (*each, *settled) for each in pruned}
        lines += [f"## {gpu.upper()}", "", *table_of(each_aligned(wanted, journal), "estimated")]
        grow = () if gpu == "jetson-nano" else EFFICIENTNETS
        larger: dict[str, Sequence[str]] = {name.removeprefix("timm:"): (name, *SCALED, *at) for name in grow}
        lines += [line for name, answer in each_aligned(larger, journal).items() for line in (grown(name, answer), "")]
    return lines


def wanted_here() -> dict[str, Sequence[str]]:
    """The networks that this machine can time within an hour."""
    return networks(32, [f"{name} --size 96 --batch 8" for name in TIMM[:3]], *EVIDENCE, "--param-tolerance", str(TOLERANCE))


def here() -> list[str]:
    """Measured on this machine."""
    found = each_aligned(wanted_here(), Journal(RESULTS / "here.jsonl"))
    devices = dict.fromkeys(answer["device"] for answer in found.values() if not isinstance(answer, str))
    return [
        "# Aligned on one machine",
        "",
        f"Measured on {', '.join(devices)}: fp32, eager;",
        "pruned networks at batch 32 and 32x32 pixels, timm's at batch 8 and 96x96 pixels. Latency mode,",
        f"greedy, parameters within {TOLERANCE:.0%}; whole networks timed in turn before and after.",
        "",
        *table_of(found, "measured"),
    ]


EPOCHS, TUNING, SEEDS = 10, 5, (0, 1, 2)
WAYS = ("dense", "pruned", "pruned and aligned")
WIDTHS = "hrank-resnet56"
RECIPE = """name: {name}
seed: {seed}
data: {{name: folder, root: {root}, nas_validation: 0.1}}
train: {{epochs: {epochs}, batch: 64, learning_rate: {rate}, warmup_epochs: 1}}
"""


def cifar(data: Path) -> list[str]:
    """ResNet-56: dense; cut to HRank's widths; cut to those aligned. All are trained for as many epochs in all."""
    root = few_images(data, WORK / "images").absolute()
    answer = each_aligned(wanted_here(), Journal(RESULTS / "here.jsonl"))[WIDTHS]
    if isinstance(answer, str):
        raise SystemExit(answer)
    widths: dict[str, dict[str, int]] = {"dense": {}, "pruned": {}, "pruned and aligned": answer["widths"]}
    if not (WORK / "resnet56").exists():
        genet("import", "genet.models.cifar:resnet56", "--size", "32", "--into", str(WORK / "resnet56"), "--classes", "10")
    journal = Journal(RESULTS / "cifar.jsonl")
    accuracies = {record["folder"]: record["accuracy"] for record in journal.read().records}
    tuned: dict[str, list[str]] = {way: [] for way in WAYS}
    for seed in SEEDS:
        dense = trained(root, WORK / "resnet56", f"dense-{seed}", EPOCHS, 0.1, seed)
        for number, way in enumerate(WAYS):
            name = f"{number}-{seed}" + (f"-{digest(json.dumps(widths[way]))[:6]}" if widths[way] else "")
            tuned[way].append(f"tuned-{name}")
            if f"tuned-{name}" not in accuracies or not (WORK / f"tuned-{name}" / "model.json").exists():
                start = dense if way == "dense" else cut(dense, widths[way], WORK / f"cut-{name}")
                folder = trained(root, start, f"tuned-{name}", TUNING, 0.02, seed, start)
                accuracy = json.loads((folder / "model.json").read_text())["test_accuracy"]
                journal.append({"way": way, "seed": seed, "folder": folder.name, "widths": widths[way], "accuracy": accuracy})
                accuracies[folder.name] = accuracy
                print(way, seed, accuracy, flush=True)
    return cifar_table(tuned, accuracies)


def genet(*arguments: str) -> None:
    """A command as a user types it."""
    subprocess.run([sys.executable, "-m", "genet", *arguments], check=True)


def trained(root: Path, network: Path, name: str, epochs: int, rate: float, seed: int, start: Path | None = None) -> Path:
    """A network trained into a folder; what is there of this very training stays."""
    recipe = WORK / f"{name}.yaml"
    write_atomic(recipe, RECIPE.format(name=name, seed=seed, root=root, epochs=epochs, rate=rate).encode())
    begin = () if start is None else ("--from", str(start))
    genet("train", str(network / "network.yaml"), "--recipe", str(recipe), "--into", str(WORK / name), *begin)
    return WORK / name


def cut(dense: Path, widths: dict[str, int], folder: Path) -> Path:
    """A trained network cut to HRank's widths, or to those that alignment made of them, by the L1 norm of its filters."""
    module = load(dense)
    structure = structure_of(module)
    assert isinstance(structure, ExternalModel)
    subject = cut_to(ModuleSubject(structure, module), WIDTHS)
    kept = kept_channels(subject.tied, {**subject.cut, **widths}, norms(module, 1))
    found = subject.build(widths, kept)
    save_weights(found, folder / WEIGHTS_FILE)
    write_atomic(folder / NETWORK_FILE, to_yaml(subject.described(found, folder.name)).encode())
    return folder


def cifar_table(tuned: dict[str, list[str]], accuracies: dict[str, float]) -> list[str]:
    """Accuracies of all seeds and latencies of the first, of the three ways; `tuned` names the folders."""
    meter = meter_of(checked_measure({"device": "auto", "batch": 32}))
    parts = {way: read_workload(str(WORK / tuned[way][0] / "network.yaml")) for way in WAYS}
    lines = [
        "# ResNet-56 on CIFAR-10: dense, pruned, and pruned and aligned",
        "",
        f"8,100 training images, {EPOCHS} epochs dense and then {TUNING} more of each way, {len(SEEDS)} seeds; HRank's widths,",
        f"channels by the L1 norm. Latency at batch 32 on {meter.setting.device.name},",
        "each timed in turn with the pruned network.",
        "",
        "| way | test accuracy | parameters | latency over the pruned network's |",
        "|---|---|---|---|",
    ]
    for way in WAYS:
        reached = [100 * accuracies[name] for name in tuned[way]]
        ratio = ratio_of(parts[way], parts["pruned"], meter)
        parameters = sum(parameter.numel() for parameter in load(WORK / tuned[way][0]).parameters())
        score = f"{fmean(reached):.2f} ± {stdev(reached):.2f} %"
        lines.append(f"| {way} | {score} | {parameters:,} | {ratio.mean:.3f} ± {ratio.error:.3f} |")
    return [*lines, ""]


PARTS: dict[str, Callable[[], list[str]]] = {"solvers": solvers, "estimates": estimates, "devices": devices, "here": here}
WITH_DATA: dict[str, Callable[[Path], list[str]]] = {"wave": wave, "cifar": cifar}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join([*PARTS, *WITH_DATA])}")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="for wave and cifar")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS | WITH_DATA]
    if unknown or (not arguments.data and set(arguments.parts) & set(WITH_DATA)):
        parser.error(f"parts are {', '.join([*PARTS, *WITH_DATA])}, the last two with --data FOLDER")
    for part in arguments.parts:
        text = "\n".join(PARTS[part]() if part in PARTS else WITH_DATA[part](arguments.data))
        print(text)
        write_atomic(RESULTS / f"{part}.md", text.encode())


if __name__ == "__main__":
    main()
