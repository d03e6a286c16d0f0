"""A Ray cluster of several nodes on this machine, one of which is killed in mid-run."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from genet.config.reader import read_recipe
from genet.config.recipe import Distill
from genet.models.build import build
from genet.pipeline.context import open_run
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.progress import Progress
from genet.storage import Journal
from genet.training.splits import load_data
from genet.trials.context import TrialContext
from genet.trials.plan import Trial, groups, plan_trials
from genet.trials.results import Event, TrialResult, read_results
from genet.trials.runners.runner import run_trials
from genet.trials.work import FineTune
from tests.fixtures.stand_ins import WORKERS, Sleeping
from tests.fixtures.tiny import tiny_recipe

pytest.importorskip("ray", reason="Ray is not installed: pip install 'genet-nas[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
ROOT = Path(__file__).parents[2]
NO_TORCH = """class cuda:
    is_available = staticmethod(lambda: False)

def set_num_threads(count): ...
"""  # in place of 64 times 250 MB, for workers that compute nothing


@dataclasses.dataclass(frozen=True)
class Slowly:
    """Fine-tunes, and tells in a file of each attempt when it begins, so that a node can be killed over it."""

    work: FineTune
    folder: Path

    def on(self, device: str, share: float = 1.0) -> Slowly:
        """See `Work`."""
        return dataclasses.replace(self, work=self.work.on(device, share))

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Event]:
        """See `Work`."""
        (self.folder / f"{trials[0].id}-{time.time_ns()}").touch()
        time.sleep(4)
        yield from self.work(trials)


@pytest.mark.slow
def test_a_run_on_ray_told_to_end_does_so_as_any_other(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", Progress(), tiny_recipe(tmp_path)) as job:
        profile_device(job)
        train_master(job)
    command = [sys.executable, "-m", "genet", "distill", str(tmp_path / "run"), "--runner", "ray"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (tmp_path / "run" / "trials.pace.json").exists():
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert said.decode() == "terminated; the same command resumes the work\n"
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_node_killed_in_mid_run_changes_no_result(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from genet.trials.runners.on_ray import OnRay

    torch.set_num_threads(1)
    recipe = tiny_recipe(tmp_path)
    distill = Distill(epochs=1, batch=128, learning_rate=0.1)
    splits = load_data(recipe.data, recipe.space.input, 0)
    work = FineTune(TrialContext(build(recipe.space.masternet(16)), splits, distill, 16, 0), "cpu")
    trials = plan_trials(recipe.space, recipe.space.widths_on_offer(), 16, 0, distill)
    alone = {event.id: event for group in groups(trials, 1) for event in work(group) if isinstance(event, TrialResult)}

    started = tmp_path / "started"
    started.mkdir()
    ray.shutdown()
    memory = 100 * 2**20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": memory})
    doomed = cluster.add_node(num_cpus=1, object_store_memory=memory)
    cluster.add_node(num_cpus=1, object_store_memory=memory)
    cluster.wait_for_nodes()
    try:
        runner = OnRay(cluster.address, "cpu")
        assert runner.workers == 3
        found: dict[str, TrialResult] = {}
        alive = True
        for event in runner(groups(trials, runner.workers), Slowly(work, started)):
            if alive and len(list(started.iterdir())) >= 3:
                cluster.remove_node(doomed, allow_graceful=False)
                alive = False
            if isinstance(event, TrialResult):
                assert event.id not in found, "one result per trial"
                found[event.id] = event
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not alive
    attempts = len(list(started.iterdir()))
    assert attempts > len(groups(trials, 3)), "the lost node's group was run again"
    assert {id: result.curve for id, result in found.items()} == {id: result.curve for id, result in alone.items()}


@pytest.mark.slow
def test_of_64_slow_workers_some_are_killed_and_no_trial_is_lost_or_written_twice(tmp_path: Path) -> None:
    import ray

    from genet.trials.runners.on_ray import OnRay

    recipe = read_recipe("genet-imagenet")
    space = recipe.space
    trials = plan_trials(space, space.widths_on_offer(), recipe.search_resolution, 0, recipe.distill)
    divided = groups(trials, WORKERS)
    doomed = frozenset(group[-1].id for group in divided[::10])
    journal, seen = Journal(tmp_path / "trials.jsonl"), tmp_path / "seen"
    seen.mkdir()
    ray.shutdown()
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "torch.py").write_text(NO_TORCH)
    ray.init(
        num_cpus=WORKERS,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{tmp_path / 'stub'}:{ROOT}"}},
        _system_config={"worker_register_timeout_seconds": 600},  # few processors start all of them at once
    )
    try:
        runner = OnRay(None, "cpu")
        assert runner.workers == WORKERS
        run_trials(divided, journal, runner, Sleeping(doomed, seen), lambda _: None)
    finally:
        ray.shutdown()
    assert len(list(seen.glob("died-*"))) == len(doomed) > 10
    assert len(journal.read().records) == len(trials)
    assert {id: found.accuracy for id, found in read_results(journal).items()} == {t.id: t.seed % 1000 / 1000 for t in trials}
