"""NATS-Bench's size space (Dong et al., 2021) as a table: 32,768 networks of five widths, through its own package."""

from __future__ import annotations

from pathlib import Path

from genet.errors import GenetError
from genet.progress import Progress
from genet.studies.filtering.bench import Bench, Row

EPOCHS = "90"  # of the trainings that its accuracies are of
TIMED_IMAGES = 256  # at a time, that its latencies are of
WHERE = "NATS-sss-v1_0-50262.pickle.pbz2, or the folder NATS-sss-v1_0-50262-simple, from github.com/D-X-Y/NATS-Bench"


def read_nats(path: Path, progress: Progress, dataset: str = "cifar10") -> Bench:
    """The space with the accuracies on a data set's test images, and throughput by the benchmark's own latencies.

    GenetError where the file or the package is not there.
    """
    if not path.exists():
        raise GenetError(f"{path}: must be NATS-Bench's size space, and is not there; it is {WHERE}")
    try:
        from nats_bench import create
    except ImportError:
        raise GenetError("--nats must have the package of NATS-Bench: pip install 'genet[nats]'") from None
    try:
        api = create(str(path), "sss", fast_mode=path.is_dir(), verbose=False)
    except Exception as fault:  # whatever a damaged file makes the package raise
        raise GenetError(f"{path}: must be NATS-Bench's size space, and cannot be read ({fault}); it is {WHERE}") from None
    rows = []
    with progress.track("networks of NATS-Bench", len(api.meta_archs)) as tracker:
        for index, network in enumerate(api.meta_archs):
            cost = api.get_cost_info(index, dataset)
            found = api.get_more_info(index, dataset, hp=EPOCHS, is_random=False)
            rows.append(
                Row(
                    network=network,
                    top1_percent=found["test-accuracy"],
                    images_per_sec=TIMED_IMAGES / cost["latency"],
                    macs=round(1e6 * cost["flops"]),
                    train_sec=found["train-all-time"],
                )
            )
            tracker.advance()
    return Bench(tuple(rows))
