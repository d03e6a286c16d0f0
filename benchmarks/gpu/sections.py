"""The sections of a device's page: what each part found, beside the papers' figures. A part that left nothing has no section."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from papers import GENET, TAIL_EFFECT, UTILIZATION
from papers.tail_effect import SHOWN

from genet.storage import Journal
from gpu.papers import (
    GENET_TABLE_3,
    GENET_TABLE_7,
    TAIL_TABLE_2,
    TAIL_TABLE_3,
    UTILIZATION_SURVEY,
)

Lines = list[str]


def as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """Return a Markdown table; a bar within a cell would end it."""
    cells = [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {row} |" for row in cells), ""]


def number(value: float | None, digits: int = 4) -> str:
    """Return a number, or n/a where there is none."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def _read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None


def probe(folder: Path) -> Lines:
    """Training steps, missing engines, and what a row of a table costs."""
    found = _read(folder / "probe.json")
    if not found:
        return []
    lines = [
        "Steps as this project's trainings and trials take them, milliseconds, images not included. `recorded` is how they are "
        "taken on a GPU, with losses read every 50 steps; `eager` is the same launched kernel by kernel; `first` is what the "
        "first calls took together, the recording among them. The networks are those of the commit above.",
        "",
    ]
    lines += as_table(
        ("step of", "batch", "deterministic", "autotuned", "way", "ms", "first", "fault"),
        ((step["name"], *_step(step, ("deterministic", "autotuned"))) for step in found["steps"]),
    )
    if found["group_steps"]:
        lines += as_table(
            ("step of a group", "batch", "way", "ms", "first", "fault"),
            (
                (f"{step['trials']} trials ({step['mode']}), super-block {step['superblock']}", *_step(step))
                for step in found["group_steps"]
            ),
        )
    if found["augmented"]:
        lines += as_table(
            ("images on the device", "pixels", "batch", "images/s"),
            (
                (each["augment"], *(f"{each[name]:,.0f}" for name in ("resolution", "batch", "images_per_s")))
                for each in found["augmented"]
            ),
        )
    missing = [f"{each['convolution']} ({'deterministic' if each['deterministic'] else 'at all'})" for each in found["missing"]]
    lines += [
        f"Of {found['convolutions']} kinds of convolution in {found['number_format']}, channels_last, "
        + (
            f"these have no engine: {', '.join(missing)}."
            if missing
            else "all have a deterministic engine, forward and backward."
        ),
        "",
        "What a row of a latency table costs, milliseconds:",
        "",
    ]
    return lines + as_table(
        ("block", "memory format", "prepare", "prepare again", "timing", "one block", "three", "spread"),
        (
            (
                row["block"],
                row["memory_format"],
                *(number(row[name], 0) for name in ("prepare_ms", "prepare_again_ms", "race_ms")),
                number(row["one_ms"]),
                number(row["three_ms"]),
                f"{row['spread']:.1%}",
            )
            for row in found["rows"]
        ),
    )


def _step(step: dict[str, Any], marks: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns that steps of trainings and of groups of trials have in common."""
    marked = ("yes" if step[name] else "no" for name in marks)
    return (f"{step['batch']}", *marked, step["way"], number(step["ms"], 2), number(step["first_ms"], 0), step["fault"] or "")


def tests(folder: Path) -> Lines:
    """What the tests ended with."""
    found = _read(folder / "tests.json")
    if not found:
        return []
    failed = f"; failed: {', '.join(found['failed'])}" if found["failed"] else ""
    return [f"{found['passed']} passed, {found['skipped']} skipped, {len(found['failed'])} failed{failed}.", ""]


def table(folder: Path) -> Lines:
    """What a table holds and cost, and its staircases if they were drawn with it."""
    found = _read(folder / "table.json")
    if not found:
        return []
    per_row = found["seconds"] / found["rows_measured"] if found["rows_measured"] else None
    return [
        f"{found['setting']}: {found['rows']} rows of blocks ({found['failed']} failed) with kernels "
        f"{', '.join(map(str, found['kernels']))} and {found['networks']} whole networks in {found['seconds']:.0f} s, "
        f"{number(per_row, 3)} s a row with all that belongs to it; from one reading of the sentinel to the next "
        f"{found['sentinel_scatter']:.2%}. Rows: [latency.jsonl]({folder.name}/run/latency.jsonl).",
        "",
        *staircases(folder),
    ]


def staircases(folder: Path) -> Lines:
    """Edges of every staircase."""
    found = _read(folder / "staircases.json")
    if not found:
        return []
    rows = (
        (
            str(each["superblock"]),
            each["block_type"],
            each["pattern"],
            ", ".join(map(str, each["edges"])) or "none",
            ", ".join(map(str, each["kept"])),
        )
        for each in found["staircases"]
    )
    head = ("super-block", "type", "pattern", "edges", "widths kept")
    return [*as_table(head, rows), f"[Picture]({folder.name}/staircases.svg).", ""]


def prediction(folder: Path) -> Lines:
    """Errors over networks that the correction has not seen."""
    file = folder / "prediction.md"
    return [*file.read_text().splitlines()[2:], ""] if file.exists() else []


def networks(folder: Path) -> Lines:
    """Milliseconds per image beside table 7, and ratios beside table 3."""
    records = Journal(folder / "networks.jsonl").read().records
    if not records:
        return []
    by_name: dict[str, dict[str, float]] = defaultdict(dict)
    facts: dict[str, dict[str, Any]] = {}
    for record in records:
        facts[record["network"]] = record
        if "ms" in record:
            by_name[record["network"]][record["runtime"]] = record["ms_per_image"]
    runtimes = list(dict.fromkeys(record["runtime"] for record in records))
    key = records[-1]["key"]
    lines = [
        f"Milliseconds per image at batch {key['batch']}, {key['dtype']}, {key['memory_format']}; beside them "
        f"{GENET}'s table 7: V100, FP16, PyTorch of 2020. MACs and parameters are those of convolutions and linear layers.",
        "",
    ]
    lines += as_table(
        ("network", "pixels", "GMACs", "million parameters", "kernels", *runtimes, "V100, table 7"),
        (
            (
                f"`{name}`",
                str(fact["resolution"]),
                number(fact["macs"] / 1e9, 2),
                number(fact["parameters"] / 1e6, 2),
                str(fact["kernels"]),
                *(number(by_name[name].get(runtime)) for runtime in runtimes),
                number(GENET_TABLE_7.get(name), 2),
            )
            for name, fact in facts.items()
        ),
    )
    ratios = []
    for ours, other, said in GENET_TABLE_3:
        found = [
            number(by_name[other][runtime] / by_name[ours][runtime], 2) if {ours, other} <= _timed(by_name, runtime) else "n/a"
            for runtime in runtimes
        ]
        ratios.append((f"{other} over {ours}", *found, number(said, 1)))
    return [*lines, *as_table(("latency of", *runtimes, "V100, table 3"), ratios)]


def _timed(by_name: dict[str, dict[str, float]], runtime: str) -> set[str]:
    return {name for name, found in by_name.items() if runtime in found}


def align(folder: Path) -> Lines:
    """Alignment beside tables 2 and 3 of the tail-effect paper."""
    records = Journal(folder / "align.jsonl").read().records
    rows, larger = [], []
    for record in records:
        name, answer = _aligned_name(record["command"]), record["answer"]
        if isinstance(answer, str):
            rows.append((name, answer, "", "", TAIL_TABLE_2.get(name, "n/a")))
        elif "--scale" in record["command"]:
            best = answer["best"]
            growth = f"{best['parameters'] / answer['parameters']:.2f}, {best['macs'] / answer['macs']:.2f}"
            pixels = f"{answer['resolution']} -> {best['resolution']}"
            larger.append((name, pixels, growth, f"{best['measured']['mean']:.3f}", TAIL_TABLE_3.get(name, "n/a")))
        else:
            ratio, (before, after) = answer["measured"], answer["parameters"]
            ms = f"{ratio['before_ms']:.3f} -> {ratio['ms']:.3f}"
            change = f"{answer['ratio'] - 1:+.1%}"
            rows.append((name, ms, change, f"{after / before - 1:+.1%}", TAIL_TABLE_2.get(name, "n/a")))
    lines = [
        f"Whole networks in turn before and after, parameters within 5 %; beside them the {TAIL_EFFECT}'s table 2 (Titan-V).",
        "",
    ]
    lines += as_table(("network", "ms per batch", "change", "parameters", "paper"), rows) if rows else []
    if larger:
        lines += ["Width and resolution grown at equal latency, batch 1, eager; beside them its table 3.", ""]
        lines += as_table(("network", "pixels", "times the parameters, the MACs", "of the latency", "paper"), larger)
    return [*lines, f"[More]({folder.name}/align.md).", ""] if records else []


def _aligned_name(command: Sequence[str]) -> str:
    return command[command.index("--pruned") + 1] if "--pruned" in command else command[0]


def blocks(folder: Path) -> Lines:
    """Curves over batch and width."""
    lines: Lines = []
    for file in sorted(folder.glob("figure-*.json")):
        figure = _read(file)
        lines += [f"{figure['figure']} ({GENET}: V100, FP16):", ""]
        for number_, curves in enumerate(figure["curves"], start=1):
            scale = 1 if curves["batch"] is None else curves["batch"]
            rows = (
                (
                    curve["name"],
                    *(
                        number(ms and ms / (value if curves["batch"] is None else scale))
                        for value, ms in zip(curve["values"], curve["ms"], strict=True)
                    ),
                )
                for curve in curves["curves"]
            )
            head = (f"ms per image over {curves['variable']}", *map(str, curves["curves"][0]["values"]))
            lines += [*as_table(head, rows), f"[Picture]({folder.name}/{file.stem}-{number_}.svg).", ""]
    return lines


def filters(folder: Path) -> Lines:
    """Staircases over the number of filters beside figures 9 to 11."""
    found = _read(folder / "stairs.json")
    if not found:
        return []
    lines = [f"Layers of VGG16 over their number of filters; the {TAIL_EFFECT} shows (Titan-V, fp32):", ""]
    lines += [*(f"- figure {figure}: {said}" for figure, said in SHOWN.items()), ""]
    rows = (
        (
            str(each["figure"]),
            each["layer"],
            str(each["batch"]),
            each["pattern"],
            f"{len(each['widths'])} ({each['widths'][0]} to {each['widths'][-1]})",
            f"{each['ms'][0]:.4f} -> {each['ms'][-1]:.4f}",
            ", ".join(map(str, each["edges"])) or "none",
        )
        for each in found["stairs"]
    )
    return [*lines, *as_table(("figure", "layer", "batch", "pattern", "widths measured", "ms per batch", "edges"), rows)]


def survey(folder: Path) -> Lines:
    """Utilization beside the paper's survey on a V100."""
    records = Journal(folder / "survey.jsonl").read().records
    found = [record["row"] for record in records if record.get("row")]
    if not found:
        return []
    shares = {row["model"]: row["tflops_per_sec"] / row["peak_tflops_per_sec"] for row in found if row["peak_tflops_per_sec"]}
    lines = [f"{len(found)} networks, each at the batch named, beside the {UTILIZATION} (V100, TensorRT, FP16)."]
    if shares:
        lines[0] += (
            f" Utilization {min(shares.values()):.0%} to {max(shares.values()):.0%}, median {median(shares.values()):.0%}."
        )
    rows = []
    for row in found:
        name = row["model"].removeprefix("timm:")
        speed, flops = UTILIZATION_SURVEY.get(name, (None, None))
        share = shares.get(row["model"])
        measured = (f"{row['images_per_sec']:,.0f}", f"{row['tflops_per_sec']:.2f}", "n/a" if share is None else f"{share:.1%}")
        rows.append((name, str(row["batch"]), *measured, number(speed, 0), number(flops, 2)))
    head = ("network", "batch", "images/s", "TFLOP/s", "utilization", "V100 images/s", "V100 TFLOP/s")
    return [*lines, "", *as_table(head, rows)]


def search(folder: Path) -> Lines:
    """What the race ended with: per budget the winner, and the best known design or the best of the search beside it."""
    found = _read(folder / "run" / "results.json")
    if not found:
        return []
    rows = []
    for outcome in found["outcomes"]:
        beside = [other for other in (outcome["known"], outcome["best_searched"]) if other and other["name"] != outcome["name"]]
        for each in (outcome, *beside):
            rows.append(
                (
                    str(outcome["budget"]),
                    f"{each['name']}{', won' if each is outcome else ''}{', a tie' if outcome['tie'] else ''}",
                    number(each["ms_per_image"]),
                    number(outcome["budget_ms_per_image"]),
                    f"{each['held_out_accuracy']:.2%} ± {each['held_out_error']:.2%}",
                    f"{each['test_accuracy']:.2%} ± {each['test_error']:.2%}",
                    f"{each['parameters']:,}",
                    f"`{each['network']}`",
                )
            )
    head = ("budget", "network", "ms/image", "within", "held-out accuracy", "test accuracy", "parameters", "notation")
    masternet = f"The MasterNet: {found['masternet_ms_per_image']:.4f} ms/image, {found['masternet']['test_accuracy']:.2%}."
    cost = f"Search and race cost {found['trainings']:.1f} full trainings. Errors are standard errors."
    lines = [*as_table(head, rows), masternet, cost, ""]
    if not any(outcome["known"] for outcome in found["outcomes"]):
        lines.insert(0, "No known design was within a budget, so no winner had a rival.")
    return lines


def pages(*names: str) -> Callable[[Path], Lines]:
    """Return a section that leads to files which are pages or pictures by themselves."""

    def section(folder: Path) -> Lines:
        there = [f"[{name}]({folder.name}/{name})" for name in names if (folder / name).exists()]
        return [", ".join(there) + ".", ""] if there else []

    return section


def compiled(folder: Path) -> Lines:
    """Compiled networks, serving and tests."""
    return [*networks(folder), *pages("serving.md")(folder), *tests(folder)]


SECTIONS: dict[str, tuple[str, Callable[[Path], Lines]]] = {
    "search": ("A whole search on CIFAR-10", search),
    "probe": ("Training steps, engines, rows", probe),
    "tests": ("Tests", tests),
    "table": ("The latency table of the paper's space, kernel 5", table),
    "staircases": ("Staircases", staircases),
    "prediction": ("Predicted against measured", prediction),
    "networks": ("Whole networks", networks),
    "align": ("Alignment", align),
    "blocks": ("Networks over batch, blocks over width", blocks),
    "filters": ("Layers over their filters", filters),
    "survey": ("Utilization", survey),
    "fold": ("Folding", pages("fold.svg", "fold.json")),
    "serving": ("Serving", pages("serving.md")),
    "trials": ("Cost of a trial", pages("trials.md")),
    "workers": ("More workers", pages("workers.md")),
    "both-kernels": ("The latency table with kernels 3 and 5", table),
    "compile": ("Compiled", compiled),
}
