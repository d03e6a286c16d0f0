"""The parts of benchmarks/gpu.sh, each resumable: what was measured stays in journals under benchmarks/results/DEVICE/."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from align import on_gpu
from prediction import report
from scaling import report as scaling_report
from serving import serve
from serving import table as serving_table
from trials import Costs, costs_of_all_ways
from trials_table import costs_table

from genet import cli, pipeline
from genet.commands.printing import progress
from genet.device import open_device, read_card
from genet.errors import GenetError, MeasurementError
from genet.files import Journal, write_atomic
from genet.job import Job, open_job
from genet.latency.meter import DeviceMeter
from genet.latency.part import read_part
from genet.latency.plan import Staircases
from genet.latency.table import Setting
from genet.nets.build import build
from genet.nets.data import Splits, TensorImages
from genet.report.figures import draw_staircases, staircase_info
from genet.report.latency_figures import draw_staircase
from genet.runfolder import RunFolder
from genet.spec.reader import read_recipe
from genet.spec.recipe import Measure, Recipe

MORE_IS_LEFT = 75
NETWORKS = (
    *(f"genet-{size}" for size in ("light", "normal", "large")),
    *(f"timm:gernet_{size}" for size in "sml"),
    *(f"timm:resnet{depth}" for depth in (18, 34, 50, 152)),
    *(f"timm:regnety_{size}" for size in ("002", "004", "006", "008")),
    "timm:mobilenetv2_100",
    *(f"timm:efficientnet_b{size}" for size in range(4)),
)
FOLDED = ("timm:resnet18", "timm:regnetx_002", "timm:gernet_s", "timm:efficientnet_b0", "timm:mobilenetv2_100", "timm:dla60x_c")
INTERRUPTED = 130
SMALL_NETWORKS = ("XX k3 c16 @8", "BL k3 c32 r0.25 @8", "timm:test_byobnet")


def main() -> int:
    """Run one part; 75 where it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--small", action="store_true", help="the processor and the smallest settings, to try the script out")
    arguments = parser.parse_args()
    try:
        PARTS[arguments.part](arguments.small)
    except KeyboardInterrupt:
        return MORE_IS_LEFT
    except GenetError as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


def checks(small: bool) -> None:
    """Every test that needs a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *(["tests/test_device.py"] if small else [])]
    code = subprocess.run(command, check=False).returncode
    write_atomic(results(small) / "checks.txt", f"{' '.join(command[1:])} ended with {code}\n".encode())
    if code not in (0, 5):  # 5: no test was selected
        raise SystemExit(code)


def table(small: bool) -> None:
    """The latency table of masternet.yaml at 224 pixels, with the time it took."""
    journal = Journal(results(small) / "table.jsonl")
    with profiled(small) as job:
        before, start = len(job.table), time.monotonic()
        try:
            pipeline.profile(job)
        finally:  # an interrupted call counts too
            seconds = time.monotonic() - start
            journal.append({"rows": len(job.table) - before, "seconds": seconds})
        rows, failed = len(job.table), sum(row.failure is not None for row in job.table.block_rows)
        note = (
            f"{job.table.setting}\n{rows} block rows ({failed} failed), {rows - before} of them in this call of {seconds:.0f} s; "
            f"{len(job.table.network_rows)} whole networks; sentinel scatter {job.table.noise:.2%}\n"
        )
        total = sum(record["seconds"] for record in journal.read().records)
        write_atomic(results(small) / "table.txt", (note + f"all calls together: {total:.0f} s\n").encode())
        print(note)


def staircases(small: bool) -> None:
    """Pictures and edges of every staircase of the table."""
    with profiled(small) as job:
        found = Staircases.load(job.folder.staircase)
        lines = []
        for place in found.staircases:
            if place.staircase:
                name = f"super-block {place.superblock + 1}, {place.block_type}, {place.resolution} px"
                edges = ", ".join(map(str, place.staircase.edges)) or "none"
                lines.append(f"{name}: {place.staircase.pattern}; edges {edges}; kept {', '.join(map(str, place.kept))}")
                file = f"{place.superblock + 1}-{str(place.block_type).replace(' ', '-')}.svg"
                write_atomic(results(small) / "staircases" / file, draw_staircase(place.staircase, name).encode())
        write_atomic(results(small) / "staircases.txt", ("\n".join(lines) + "\n").encode())
        panels = staircase_info(found, job.recipe.search_resolution)
        write_atomic(results(small) / "staircases.svg", draw_staircases(panels).encode())


def prediction(small: bool) -> None:
    """Predicted against measured over networks that the correction has not seen."""
    with profiled(small) as job:
        pipeline.profile(job)
        write_atomic(results(small) / "prediction.md", report(job, 3 if small else 50).encode())


def networks(small: bool) -> None:
    """Whole networks at batch 64 in FP16 under each runtime; each is measured once and kept."""
    device = open_device("cpu" if small else "cuda")
    journal = Journal(results(small) / "networks.jsonl")
    runtimes = ("eager",) if small else ("eager", "cudagraph", "compile")
    current: set[str] = set()
    known = {(record["network"], record["setting"]) for record in journal.read().records}
    for runtime in runtimes:
        wanted = Measure(runtime=runtime, dtype="fp32" if small else "fp16", batch=2 if small else 64)
        meter = DeviceMeter(Setting.of(read_card(device), wanted), device)
        for name in SMALL_NETWORKS if small else NETWORKS:
            if (name, meter.setting.digest) in known:
                continue
            setting = meter.setting.model_dump(mode="json")
            record: dict[str, object] = {"network": name, "setting": meter.setting.digest, "runtime": runtime, "key": setting}
            try:
                (timing,) = meter.prepare([read_part(name)])()
                record |= {"ms": timing.ms, "spread": timing.spread, "ms_per_image": timing.ms / wanted.batch}
            except MeasurementError as fault:
                record |= {"failure": str(fault)}
            journal.append(record)
            print({name: value for name, value in record.items() if name != "key"})
        current.add(meter.setting.digest)
    write_atomic(results(small) / "networks.md", networks_table(journal, runtimes, current).encode())


def networks_table(journal: Journal, runtimes: tuple[str, ...], current: set[str]) -> str:
    """Milliseconds per image as Markdown, a column per runtime, of today's settings alone."""
    rows = [record for record in journal.read().records if record["setting"] in current]
    ms = {(r["network"], r["runtime"]): f"{r['ms_per_image']:.4f}" if "ms" in r else "failed" for r in rows}
    lines = ["| network | " + " | ".join(runtimes) + " |", "|---" * (len(runtimes) + 1) + "|"]
    for name in dict.fromkeys(name for name, _ in ms):
        lines.append(f"| {name} | " + " | ".join(ms.get((name, runtime), "n/a") for runtime in runtimes) + " |")
    return "\n".join(lines) + "\n"


def trials(small: bool) -> None:
    """What a trial costs by mode, for 32x32 images and for the paper's MasterNet at 224 pixels; several trials on one GPU."""
    device = open_device("cpu" if small else "cuda")
    little = read_recipe(Path(__file__).parent / "trials.yaml")
    paper = read_recipe("genet-imagenet")
    few = paper.space.perturb.model_copy(update={"samples": 1})
    paper = paper.model_copy(update={"space": paper.space.model_copy(update={"perturb": few})})
    lines = [f"# Cost of a trial, images in memory\n\n{read_card(device).name}"]
    for name, job, batch, images in (("32x32", little, 256, 2048), ("the paper's MasterNet, 224 pixels", paper, 64, 256)):
        if small and job is paper:
            continue
        job = job.model_copy(update={"distill": job.distill.model_copy(update={"batch": 32 if small else batch})})
        count = 64 if small else images
        kept = results(small) / f"trials-{job.search_resolution}.json"
        if not kept.exists():
            parent = build(job.space.masternet(job.search_resolution))
            seconds = costs_of_all_ways(job, parent, random_images(job, count), count, device)
            Costs(device=read_card(device).name, seconds=seconds).save(kept)
        costs = Costs.load(kept).seconds
        lines += [f"\n{name}, batch {job.distill.batch}, {count} images an epoch\n", costs_table(costs)]
        write_atomic(results(small) / "trials.md", "\n".join(lines).encode())
    if not small:
        lines += ["", scaling_report(str(device))]
    write_atomic(results(small) / "trials.md", "\n".join(lines).encode())


def random_images(recipe: Recipe, count: int) -> Splits:
    """Costs do not depend on what is seen."""
    size, reads = recipe.search_resolution, recipe.space.input
    images = TensorImages(torch.randn(count, reads.channels, size, size), torch.randint(0, reads.classes, (count,)))
    return Splits(images, images, images)


def serving(small: bool) -> None:
    """One network in every runtime of torch, beside timm's own model of it."""
    device = open_device("cpu" if small else "cuda")
    found = serve(
        "@32x3 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | XX k3 c8 s2 d1 | Conv k1 c8 | 10" if small else "genet-large", device, 64
    )
    found.save(results(small) / "serving.json")
    write_atomic(results(small) / "serving.md", serving_table([found]).encode())


def align(small: bool) -> None:
    """Pruned networks aligned, and EfficientNets grown at equal latency."""
    write_atomic(results(small) / "align.md", "\n".join(on_gpu(results(small), small)).encode())


def survey(small: bool) -> None:
    """The networks of the utilization paper's survey at the largest batch that fits, and some of them folded."""
    folder, device = results(small), ("--device", "cpu", "--batch", "4") if small else ("--device", "cuda", "--dtype", "fp16")
    wanted = ("timm:test_byobnet", "--size", "32") if small else ("--preset", "paper", "--largest-batch")
    files = [
        f"--{kind}={folder / name}" for kind, name in (("csv", "survey.csv"), ("page", "survey.html"), ("picture", "survey.svg"))
    ]
    _command("survey", *wanted, *device, f"--evidence={folder / 'survey.jsonl'}", *files)
    folded = ("timm:test_byobnet", "--size", "32") if small else (*FOLDED, "--batch", "256")
    _command("fold", *folded, *device, f"--picture={folder / 'fold.svg'}")


def _command(*arguments: str) -> None:
    """A command as a user types it; what is interrupted is gone on with by the next call."""
    code = cli.main(arguments)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)


PARTS: dict[str, Callable[[bool], None]] = {
    "checks": checks,
    "table": table,
    "staircases": staircases,
    "prediction": prediction,
    "networks": networks,
    "trials": trials,
    "serving": serving,
    "align": align,
    "survey": survey,
}


def profiled(small: bool) -> AbstractContextManager[Job]:
    """The run folder of the table as a job; made where it is not there yet."""
    folder = results(small) / "run"
    RunFolder(folder).adopt(recipe(small))
    return open_job(folder, progress())


def recipe(small: bool) -> Recipe:
    """masternet.yaml at 224 pixels in FP16 on the GPU, without images: nothing is trained here."""
    whole = read_recipe("digits" if small else "genet-imagenet")
    size = 24 if small else 224
    space = whole.space.model_copy(update={"input": whole.space.input.model_copy(update={"resolutions": (size,)})})
    if small:
        narrow = space.perturb.model_copy(update={"width": (0.9, 1.2), "types": None})
        space = space.model_copy(update={"perturb": narrow})
    measure = Measure(device="cpu", batch=2, networks=3) if small else Measure(device="cuda", dtype="fp16")
    return whole.model_copy(update={"space": space, "measure": measure, "resolution": size, "data": whole.data})


def results(small: bool) -> Path:
    """Where the results of this device go; the facts of the device are written there first."""
    card = read_card(open_device("cpu" if small else "cuda"))
    name = "dry-run" if small else card.name.lower().replace(" ", "-")
    folder = Path(__file__).parent / "results" / name
    card.save(folder / "environment.json")
    return folder


if __name__ == "__main__":
    sys.exit(main())
