"""Tools that cut a trained network to a share of its latency, behind one contract: `genet align`, FastNAS, Torch-Pruning."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import fsum
from pathlib import Path
from threading import Event, Thread

import torch
from pruning import Bench, pruned
from torch import nn

from genet.arch.external import ExternalModel
from genet.config.reader import read_structure
from genet.config.recipe import Recipe, TrainingRecipe
from genet.errors import first_line
from genet.models.weights import NETWORK_FILE, load
from genet.pipeline.train import train_network
from genet.storage import Journal, Record
from genet.studies.align.study import Ratio
from genet.training.accuracy import accuracy
from genet.training.image_sets import ImageSet
from genet.training.loop import Execution
from genet.training.splits import load_data

CPU = torch.device("cpu")
MOST = 0.9  # of the FLOPs or channels, that a tool may take away
STEPS = 50  # of Torch-Pruning's ratio from 0 to 1, at which its MACs are looked at
DIVISOR = 8  # of FastNAS's widths: its own, 32, leaves narrow networks nothing to choose
BATCH = 128  # of images that statistics of normalisations are taken from
MASTERNET = "the MasterNet"
CUT, OUT_OF_REACH = "cut", "out of reach"
MINUTES = "minutes.jsonl"  # beside what a stopped peer goes on from


@dataclass(frozen=True)
class Question:
    """The network to cut, its clock and its images, and the wanted share of its latency; `folder` is the peer's own.

    The answer's network, which can be trained on, is left in `cut`.
    """

    bench: Bench
    held_out: ImageSet
    target: float
    folder: Path

    @property
    def cut(self) -> Path:
        """The folder of the cut network."""
        return self.folder / CUT


@dataclass(frozen=True)
class Answer:
    """Latencies over the MasterNet's: what the tool's own knob first gave, and once it was turned."""

    first: Ratio
    turned: Ratio
    alone: bool | None  # whether it loads where the tool is missing; None if the tests of exports tell


Peer = Callable[[Question], Answer | None]  # None: its latency is out of reach


def genet_align(asked: Question) -> Answer | None:
    """Widths and blocks by importance. Its knob is the measured latency, so nobody turns it."""
    bench = asked.bench
    if not pruned(bench, "importance", asked.target, bench.meter.setting.batch, asked.cut):
        return None
    ratio = bench.ratio(load(asked.cut))
    return Answer(ratio, ratio, None)


def fastnas(asked: Question) -> Answer | None:
    """NVIDIA Model-Optimizer's pruning for vision: widths by their accuracy on held-out images, within a share of the FLOPs."""
    import modelopt.torch.prune as mtp

    subject = asked.bench.subject
    input_ = subject.network.input
    batches = list(asked.bench.images.batches(BATCH, input_.resolution))
    rules = mtp.fastnas.FastNASConfig()
    rules["nn.Conv2d"]["*"]["channel_divisor"] = rules["nn.BatchNorm2d"]["*"]["feature_divisor"] = DIVISOR

    def cut(amount: float) -> nn.Module:
        module, _ = mtp.prune(
            copy.deepcopy(subject.source),
            mode=[("fastnas", rules)],
            constraints={"flops": f"{100 * (1 - amount):.2f}%"},
            dummy_input=batches[0][0][:1],
            config={
                "data_loader": batches,
                "score_func": lambda found: accuracy(found, asked.held_out, input_.resolution, CPU),
                "checkpoint": str(asked.folder / "fastnas.pth"),  # scores hold for every share
                "verbose": False,
            },
        )
        return module

    return turned(asked, cut, 1 - asked.target, "modelopt")


def torch_pruning(asked: Question) -> Answer | None:
    """Torch-Pruning's magnitudes over the whole network, within a share of the MACs as in its own command for CIFAR-10."""
    from torch_pruning.utils import count_ops_and_params

    bench = asked.bench
    example = torch.zeros(1, *bench.subject.network.input.image)
    whole, _ = count_ops_and_params(bench.subject.source, example)
    amounts = [step / STEPS for step in range(round(MOST * STEPS) + 1)]

    def is_within(amount: float) -> bool:
        return bool(count_ops_and_params(bench.magnitude(amount), example)[0] <= asked.target * whole)

    amount = amounts[min(bisect_left(amounts, True, key=is_within), len(amounts) - 1)]
    return turned(asked, bench.magnitude, amount, "torch_pruning")


PEERS: dict[str, Peer] = {"genet align": genet_align, "FastNAS": fastnas, "Torch-Pruning": torch_pruning}


def turned(asked: Question, cut: Callable[[float], nn.Module], amount: float, tool: str) -> Answer | None:
    """Cut by the amount that the knob stands for, and then by the least that is surely as fast as wanted."""
    first = asked.bench.ratio(cut(amount))
    found = asked.bench.brought_to(asked.target, cut, MOST)
    if found is None:
        return None
    module, ratio = found
    asked.bench.write(module, asked.cut)
    return Answer(first, ratio, loads_without(tool, module))


def loads_without(tool: str, module: nn.Module) -> bool:
    """Whether a network that `torch.save` wrote loads in a process that cannot import the tool."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "module.pt"
        torch.save(module, file)
        code = f"import sys; sys.modules[{tool!r}] = None; import torch; torch.load({str(file)!r}, weights_only=False)"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


class Row(Record):
    """What a peer made of the MasterNet for a budget; shares are of the MasterNet's latency. `why` tells why there is nothing."""

    peer: str
    budget: str
    network: str | None
    first: float | None = None
    turned: float | None = None
    minutes: float  # that it took in all its sessions, without the training of the MasterNet
    alone: bool | None = None
    why: str = ""


@contextmanager
def counted(folder: Path) -> Iterator[None]:
    """Count the time of the block as work in a folder, with a line a minute in a journal there, so that a kill loses no more."""
    journal, over, since = Journal(folder / MINUTES), Event(), time.perf_counter()

    def note() -> None:
        nonlocal since
        now = time.perf_counter()
        journal.append({"minutes": (now - since) / 60})
        since = now

    def keep_noting() -> None:
        while not over.wait(60):
            note()

    noting = Thread(target=keep_noting, daemon=True)
    noting.start()
    try:
        yield
    finally:
        over.set()
        noting.join()
        note()


def minutes_in(folder: Path) -> float:
    """The minutes of all sessions in a folder, those that were stopped among them."""
    return fsum(record["minutes"] for record in Journal(folder / MINUTES).read().records)


def trained_masternet(recipe: Recipe, structure: ExternalModel, folder: Path, journal: Journal) -> Row:
    """The MasterNet trained once by the recipe's `train`, for tools that cut; and the minutes of that."""
    wanted = recipe.model_dump(include={"data", "augment", "train", "seed"})
    with counted(folder):
        train_network(folder, structure, TrainingRecipe.model_validate({"name": "masternet", **wanted}), Execution())
    rows = map(Row.model_validate, journal.read().records)
    known = next((row for row in rows if row.peer == MASTERNET), None)
    if known:
        return known
    row = Row(peer=MASTERNET, budget="1x", network=str(structure), first=1.0, turned=1.0, minutes=minutes_in(folder))
    journal.append(row.model_dump(mode="json"))
    return row


def folder_of(work: Path, peer: str, budget: str) -> Path:
    """Where a peer works at a budget."""
    return work / f"{peer.replace(' ', '-')}-{budget}"


def cut_by_all(bench: Bench, recipe: Recipe, work: Path, journal: Journal) -> list[Row]:
    """Every peer's row for every budget; what the journal holds is not made again, and what failed is tried again."""
    known = {(row.peer, row.budget): row for row in map(Row.model_validate, journal.read().records)}
    held_out = load_data(recipe.data, bench.subject.network.input, recipe.seed).nas_validation
    found = []
    for budget in recipe.select.budgets:
        for peer in PEERS:
            row = known.get((peer, str(budget)))
            if row is None:
                print(f"  {peer} at {budget}", flush=True)
                folder = folder_of(work, peer, str(budget))
                folder.mkdir(parents=True, exist_ok=True)
                row = cut_by(peer, str(budget), Question(bench, held_out, budget.amount, folder))
                if row.network or row.why == OUT_OF_REACH:
                    journal.append(row.model_dump(mode="json"))
            found.append(row)
    return found


def cut_by(peer: str, budget: str, asked: Question) -> Row:
    """One peer's row for a budget."""
    answer, why = None, OUT_OF_REACH
    try:
        with counted(asked.folder):
            answer = PEERS[peer](asked)
    except ImportError as fault:
        why = f"not installed here ({first_line(fault)})"
    except Exception as fault:  # whatever another tool raises is its row
        why = f"failed ({first_line(fault)})"
    row = partial(Row, peer=peer, budget=budget, minutes=minutes_in(asked.folder))
    if answer is None:
        return row(network=None, why=why)
    network = str(read_structure(asked.cut / NETWORK_FILE))
    return row(network=network, first=answer.first.mean, turned=answer.turned.mean, alone=answer.alone)
