"""`genet profile`: the latency of every block on offer, and the staircases."""

from __future__ import annotations

import argparse

from genet.cli.console import Answer, progress
from genet.pipeline.context import open_run
from genet.pipeline.profile import profile_device


def run(arguments: argparse.Namespace) -> Answer:
    """Measure the rows missing from the run's latency table, and find the staircases."""
    with open_run(arguments.run, progress()) as job:
        stairs = profile_device(job).staircases
    offered = {(index, str(kind)): len(widths) for (index, kind), widths in job.space.widths_on_offer().items()}
    kept = [len(stair.kept) / offered[stair.superblock, stair.block_type] for stair in stairs]
    return {
        "blocks": len(job.table),
        "failed": sum(row.failure is not None for row in job.table.block_rows),
        "networks": len(job.table.network_rows),
        "staircases": len(stairs),
        "edges": sum(len(stair.staircase.edges) for stair in stairs if stair.staircase),
        "widths_kept": sum(kept) / max(1, len(kept)),
        "noise": job.table.noise,
        "estimate": job.table.setting.estimate,
    }
