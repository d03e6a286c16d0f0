"""`genet master`: the training of the MasterNet."""

from __future__ import annotations

import argparse
from typing import Any

from genet.cli.console import progress
from genet.pipeline.context import open_run
from genet.pipeline.learn import train_master
from genet.search.outcome import percent

Answer = dict[str, Any]


def run(arguments: argparse.Namespace) -> Answer:
    """Train the run's MasterNet, and print its accuracy."""
    with open_run(arguments.run, progress()) as job:
        trained = train_master(job)
    print(f"accuracy on the images held out for the search: {percent(trained.nas_accuracy)}")
    return trained.model_dump(mode="json")
