"""NATS-Bench's size space (Dong et al., 2021) as a table: 32,768 networks of five widths, through its own package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genet.errors import GenetError, first_line
from genet.progress import Progress
from genet.studies.filter.bench import Bench, Row

EPOCHS = "90"  # epochs of the trainings behind its accuracies
TIMED_IMAGES = 256  # images at a time behind its latencies
WHERE = "NATS-sss-v1_0-50262.pickle.pbz2, or the folder NATS-sss-v1_0-50262-simple, from github.com/D-X-Y/NATS-Bench"


def read_nats(path: Path, progress: Progress, dataset: str = "cifar10") -> Bench:
    """Return the space with the accuracies on a data set's test images, and throughput by the benchmark's own latencies.

    GenetError if the file or the package is not there.
    """
    if not path.exists():
        raise GenetError(f"{path} does not exist, expected NATS-Bench's size space; it is {WHERE}")
    try:
        from nats_bench import create
    except ImportError:
        raise GenetError("--nats must have the package of NATS-Bench: pip install 'genet-nas[nats]'") from None
    try:
        api = create(str(path), "sss", fast_mode=path.is_dir(), verbose=False)
        with progress.track("networks of NATS-Bench", len(api.meta_archs)) as tracker:
            rows = []
            for index, network in enumerate(api.meta_archs):
                rows.append(_row(api, index, network, dataset))
                tracker.advance()
    except Exception as fault:  # any error of the package for a damaged file
        law = f"{path}: reading it as NATS-Bench's size space failed"
        raise GenetError(f"{law} ({first_line(fault)}); it is {WHERE}") from None
    return Bench(tuple(rows))


def _row(api: Any, index: int, network: str, dataset: str) -> Row:
    cost = api.get_cost_info(index, dataset)
    found = api.get_more_info(index, dataset, hp=EPOCHS, is_random=False)
    return Row(
        network=network,
        top1_percent=found["test-accuracy"],
        images_per_sec=TIMED_IMAGES / cost["latency"],
        macs=round(1e6 * cost["flops"]),
        train_sec=found["train-all-time"],
    )
