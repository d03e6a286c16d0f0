"""What the report takes from a run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from genet.config.budget import Budget
from genet.config.recipe import Measure
from genet.device import read_card
from genet.latency.table import Setting
from genet.pipeline.context import read_run
from genet.pipeline.report import short_trainings
from genet.pipeline.run_folder import RunFolder
from genet.pipeline.trainings import FinishedTraining
from genet.progress import SILENT
from genet.report.race_figures import ShortTraining
from genet.search.race import Entrant, Entrants, JointTrial
from genet.storage import digest
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

BUDGET = Budget(1.0, "x")
FIVE = RECIPE.replace("train: {epochs: 2", "train: {epochs: 10")  # a short training has two


def entrant(network: str, design: str | None = None) -> Entrant:
    facts = {"resolution": 16, "budget_ms_per_image": 1.0, "parameters": 1, "macs": 1}
    return Entrant(budget=BUDGET, within=(BUDGET,), design=design, name=f"{design or 'tiny'}-{network}", network=network, **facts)


def test_of_all_trainings_the_short_ones_of_who_races_are_shown_with_whose_they_are(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_recipe(tmp_path, FIVE, SPACE).rename(run.recipe_file)
    job = read_run(run.path, SILENT)
    assert short_trainings(job) == {}, "before the race"
    Entrants(
        inputs="",
        setting=Setting.of(read_card(torch.device("cpu")), Measure()),
        masternet_ms_per_image=1.0,
        entrants=(entrant("searched"), entrant("known", design="resnet18"), entrant("failed")),
        unmet=(),
        joint=(JointTrial(network="joint", budget=BUDGET),),
        promoted=(),
    ).save(run.entrants)
    trainings = [("searched", 4, 0, 0.5), ("searched", 10, 0, 0.9), ("known", 4, 0, 0.6), ("known", 4, 1, 0.7)]
    trainings += [("joint", 4, 0, 0.4), ("stranger", 4, 0, 0.8), ("failed", 4, 0, None)]
    for network, epochs, repeat, held_out in trainings:
        id = digest(f"{network}/{epochs}/{repeat}")
        line = FinishedTraining(id=id, name=f"tiny-{network}", network=network, epochs=epochs, repeat=repeat, held_out=held_out)
        run.race.append(line.model_dump(mode="json"))
    assert short_trainings(job) == {
        "searched": ShortTraining("tiny-searched", 0.5, True),
        "known": ShortTraining("resnet18-known", 0.6, False),  # it was a joint trial by another name when it was trained
        "joint": ShortTraining("tiny-joint", 0.4, True),
    }
