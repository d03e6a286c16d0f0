"""`genet report`: the page about a run."""

from __future__ import annotations

import argparse

from genet.cli.console import Answer, progress
from genet.pipeline.context import read_run
from genet.pipeline.report import write_report


def run(arguments: argparse.Namespace) -> Answer:
    """Write the page about the results so far."""
    path = write_report(read_run(arguments.run, progress()))
    print(path)
    return {"report": str(path)}
