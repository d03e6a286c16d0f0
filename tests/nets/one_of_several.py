"""What a process of `test_world.py` does: train a tiny network on its part of the digits, and write down what came out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from genet.nets.build import build
from genet.nets.data import load_data
from genet.nets.evaluation import accuracy
from genet.nets.images import View
from genet.nets.training import train
from genet.nets.weights import save_weights
from genet.nets.world import join
from genet.spec.network import Network
from genet.spec.recipe import Data, Training
from genet.spec.space import SpaceInput

TINY = Network.parse("@8x1 | Conv k3 c8 s1 | XX k3 c16 s2 d1 | DW k3 c16 s1 d1 r2 | BL k3 c16 s2 d1 r0.5 | Conv k1 c24 | 10")
TRAINING = Training(
    epochs=2, batch=64, learning_rate=0.4, warmup_epochs=1, mixup=0.2, erasing=0.25, ema=0.8, clip=5.0, label_smoothing=0.1
)


def main(folder: Path) -> None:
    """Train, and let the first process write weights and accuracy."""
    torch.set_num_threads(1)
    world = join()
    view = View(erasing=TRAINING.erasing, rank=world.rank, ranks=world.size)
    splits = load_data(Data(), SpaceInput(channels=1, classes=10, resolutions=(8,)), 0, view)
    module = build(TINY, seed=1)
    train(module, splits.train, TRAINING, 8, torch.device("cpu"), 0, folder / "tiny.checkpoint", world=world)
    right = accuracy(module, splits.test, 8, torch.device("cpu"), world)
    if world.first:
        save_weights(module, folder / "tiny.safetensors")
        (folder / "accuracy").write_text(repr(right))
    world.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
