"""What this project has measured, read from the committed results: networks and alignments by device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_summary import CARD, DRY_RUN

from genet.device import DeviceCard
from genet.storage import Journal

SESSION = "`benchmarks/gpu.sh evidence`, part `{}`"  # the command of all that needs a GPU


def on_gpus(results: Path, file: str) -> Iterator[tuple[str, Path]]:
    """Yield the device and the file for every GPU whose evidence has it, such as networks/networks.jsonl."""
    for evidence in sorted(results.glob("*/evidence")):
        if (evidence / file).exists() and evidence.parent.name != DRY_RUN:
            yield DeviceCard.load(evidence / CARD).name, evidence / file


def timed_networks(results: Path) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Yield the records of whole networks by name, for every GPU and runtime; those that failed have no time."""
    for device, path in on_gpus(results, "networks/networks.jsonl"):
        records = [record for record in Journal(path).read().records if "ms" in record]
        for runtime in dict.fromkeys(record["runtime"] for record in records):
            yield f"{device}, {runtime}", {each["network"]: each for each in records if each["runtime"] == runtime}


@dataclass(frozen=True)
class Alignment:
    """An alignment of a pruned network by this project: where, milliseconds per batch before, and latency after over before.

    `parameters` are those before and after, in millions. `answer` is what `genet align` said if it measured; of an estimate there
    is no more than its table tells.
    """

    how: str
    batch: int
    before_ms: float
    ratio: float
    parameters: tuple[float, float]
    answer: dict[str, Any] | None = None


def alignments(results: Path, widths: str) -> Iterator[Alignment]:
    """Yield the alignments of a pruned network: at the analytic Titan-V, then measured ones by device."""
    yield from estimated_alignments(results, widths, "titan-v")
    journals = [results / "align" / "here.jsonl", *(path for _, path in on_gpus(results, "align/align.jsonl"))]
    for record in (record for path in journals for record in Journal(path).read().records):
        answer = record["answer"]
        if widths in record["command"] and not isinstance(answer, str):
            how = f"measured, {answer['device']}, batch {answer['batch']}"
            before, after = (count / 1e6 for count in answer["parameters"])
            yield Alignment(how, answer["batch"], answer["measured"]["before_ms"], answer["ratio"], (before, after), answer)


def estimated_alignments(results: Path, widths: str, gpu: str) -> Iterator[Alignment]:
    """Yield the alignment at one of the paper's GPUs, if it is written down."""
    lines = aligned_at(results, gpu).splitlines()
    cells = next((line.split(" | ") for line in lines if line.startswith(f"| {widths} |")), None)
    if cells:
        before_ms, change, before, after = (float(cells[place].split("%")[0].split()[0]) for place in (1, 3, 5, 6))
        yield Alignment(f"estimate:{gpu}, fp32", 128, before_ms, 1 + change / 100, (before, after))


def aligned_at(results: Path, gpu: str) -> str:
    """Return the part of a page of estimates that is about one GPU; nothing if there is none."""
    pages = (results / "align" / name for name in ("devices.md", "estimates.md"))
    parts = (page.read_text().split(f"## {gpu.upper()}\n") for page in pages if page.exists())
    return next((part[1].split("\n## ")[0] for part in parts if len(part) > 1), "")
