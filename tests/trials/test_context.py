"""The digest that trials under way are found by."""

from __future__ import annotations

import hashlib

import torch

from genet.arch.network import Network
from genet.config.recipe import Distill
from genet.models.build import build
from genet.storage import digest
from genet.training.image_sets import TensorImages
from genet.training.splits import Splits
from genet.trials.context import TrialContext

EARLIER = (  # as written before `joint_fraction` was renamed
    '{"epochs":2,"batch":256,"learning_rate":0.1,"warmup_epochs":0,"momentum":0.9,"weight_decay":0.00004,"label_smoothing":0.0,'
    '"mode":"features","sampling":"designed","joint_fraction":0.25,"patience":3,"time_limit_s":null}'
)


def test_trials_under_way_before_a_key_was_renamed_are_found() -> None:
    parent, none = build(Network.parse("@8x1 | Conv k3 c8 s2 | XX k3 c8 s1 d1 | 2")), TensorImages(torch.zeros(0), torch.zeros(0))
    weights = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in parent.state_dict().values()))
    distill = Distill(epochs=2, learning_rate=0.1, paired_fraction=0.25)
    found = TrialContext(parent, Splits(none, none, none), distill, 16, seed=7).digest
    assert found == digest(f"2/{EARLIER}/16/7/{weights.hexdigest()}")
