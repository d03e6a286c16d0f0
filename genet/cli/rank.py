"""`genet rank`: the intrinsic rank of a network's stages, and the block types it suggests for them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from genet.arch.external import ExternalModel, ModelSpec
from genet.arch.network import Network, SuperBlockKind
from genet.cli.console import Answer, save_picture, table
from genet.device import open_device
from genet.errors import EvidenceError
from genet.latency.naming import structure_named, weights_of
from genet.models.external import build_structure, pretrained
from genet.models.weights import NETWORK_FILE, load_structure
from genet.pipeline.run_folder import RunFolder
from genet.search.certificate import Selection
from genet.search.outcome import TrainedNetwork
from genet.studies.figures import draw_ranks
from genet.studies.rank import ENERGY, StageRank, stage_ranks

FITS: dict[SuperBlockKind, str] = {"XX": "full convolution", "BL": "bottleneck or depthwise", "DW": "bottleneck or depthwise"}


def run(arguments: argparse.Namespace) -> Answer:
    """Print the intrinsic rank of every stage, and the block types that it suggests."""
    open_device("cpu")  # for its threads
    run = RunFolder(Path(arguments.what))
    chosen: tuple[Network, ...] = ()
    if "|" not in arguments.what and run.recipe_file.exists() and not (run.path / NETWORK_FILE).exists():
        structure: ModelSpec = Network.parse(run.read(run.master, TrainedNetwork).network)
        module = load_structure(structure, run.master.with_suffix(".safetensors"))
        if run.selection.exists():
            answers = run.read(run.selection, Selection).answers
            chosen = tuple(dict.fromkeys(Network.parse(choice.network) for choice in answers))
    else:
        structure = structure_named(arguments.what, arguments.size, arguments.example)
        module = _with_weights(arguments.what, structure, arguments.random)
    found = stage_ranks(module, structure.input.image)
    superblocks = structure.superblocks if isinstance(structure, Network) else ()
    places = [place for place, block in enumerate(superblocks) if block.depth]  # stages that have ranks
    own = tuple(superblocks[place].type for place in places)
    offered = [[network.superblocks[place] for place in places] for network in chosen]
    types = [[block.type if block.depth else None for block in blocks] for blocks in offered]  # None has vanished
    if arguments.random:
        print("random weights: these are the ranks of noise, so they give no advice")
    _print(found, own, types, arguments.random)
    if arguments.plot:
        save_picture(arguments.plot, draw_ranks(found, f"{arguments.what}{', random weights' * arguments.random}"))
    stages = [
        {**one.model_dump(mode="json"), "share": one.share, "advice": None if arguments.random else one.advice} for one in found
    ]
    return {
        "network": str(structure),
        "random": arguments.random,
        "stages": stages,
        "own": own,
        "chosen": types,
    }


def _with_weights(what: str, structure: ModelSpec, random: bool) -> nn.Module:
    """Return the network with trained weights; EvidenceError if there are none and random ones were not asked for."""
    if random:
        return build_structure(structure)
    weights = weights_of(what)
    if weights:
        return load_structure(structure, weights)
    without: str | None = "there are none beside it"
    if isinstance(structure, ExternalModel) and structure.source.startswith("timm:") and not structure.changed:
        module, without = pretrained(structure)
        if without is None:
            return module
    raise EvidenceError(
        f"{what}: got no trained weights ({without}), expected some, as the rank of random weights means nothing; give "
        "a folder with network.yaml and model.safetensors, or --random to rank random weights anyway"
    )


def _print(
    found: tuple[StageRank, ...], own: tuple[SuperBlockKind, ...], chosen: Sequence[Sequence[SuperBlockKind | None]], random: bool
) -> None:
    head = ["stage", "last convolution", "matrix", f"rank at {ENERGY:.0%}", "share of channels", "rank of noise", "advice"]
    rows = [
        [
            str(one.stage),
            one.layer,
            f"{one.shape[0]} x {one.shape[1]}",
            str(one.rank),
            f"{one.share:.0%}",
            f"{one.noise_rank / one.shape[0]:.0%}",
            "" if random else one.advice or f"none: its rank is at most {min(one.shape)}",
        ]
        for one in found
    ]
    if own:
        head.append("type now")
        rows = [[*row, kind] for row, kind in zip(rows, own, strict=True)]
    if chosen:
        head.append("chosen")
        rows = [[*row, ", ".join(dict.fromkeys(kinds[place] or "none" for kinds in chosen))] for place, row in enumerate(rows)]
    table(head, rows)
    pairs = [pair for kinds in chosen for pair in zip(found, kinds, strict=True)]
    advised = [(one.advice, kind) for one, kind in pairs if one.advice and kind]
    if advised:
        agreeing = sum(FITS[kind] == advice for advice, kind in advised)
        print(f"the search chose the advised type in {agreeing} of {len(advised)} super-blocks")
