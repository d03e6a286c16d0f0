"""Other people's networks are taken in whole: built, saved and built again they answer as they did; or a line says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genet.arch.external import ExternalModel
from genet.arch.network import Input
from genet.errors import GenetError
from genet.models.external import build_structure
from genet.models.plain import baked
from genet.models.weights import check_rebuildable, load_structure, save_weights
from tests.fixtures import others

TAKEN = [
    others.parametrized,
    others.hooked,
    others.masked,
    others.mask_under_a_norm,
    others.half,
    others.compiled,
    others.parallel,
]


def foreign(function: Callable[[], Any]) -> ExternalModel:
    return ExternalModel(source=f"tests.fixtures.others:{function.__name__}", input=Input(channels=1, classes=10, resolution=8))


def as_it_was(function: Callable[[], Any]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = function()
    found = getattr(found, "_orig_mod", found)  # compiling takes longer than all of this
    return found.eval()


@pytest.mark.parametrize("function", [*TAKEN, others.plain, others.half_frozen, others.the_same_every_time])
def test_a_network_answers_as_it_did_once_built_and_once_loaded(function: Callable[[], Any], tmp_path: Path) -> None:
    structure, images = foreign(function), torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    built = build_structure(structure)
    check_rebuildable(built, structure)
    save_weights(built, tmp_path / "model.safetensors")
    loaded = load_structure(structure, tmp_path / "model.safetensors")
    theirs = as_it_was(function)
    with torch.inference_mode():
        wanted = theirs(images.to(next(theirs.parameters()).dtype)).float()
        for module in (built.eval(), loaded):
            assert torch.allclose(module(images), wanted, atol=1e-6 if function is not others.half else 1e-3)
    assert built.state_dict().keys() == others.plain().state_dict().keys()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (others.plain, None),
        (others.parametrized, "stem.0.weight (WeightNorm), mid.0.weight (SpectralNorm), head.weight (Orthogonal)"),
        (others.hooked, "stem.0.weight (weight norm), mid.0.weight (spectral norm)"),
        (
            others.masked,
            "mid.0.weight (a mask, 32% of it zero), head.bias (a mask, 50% of it zero); training moves the zeros too",
        ),
        (others.half, "all of torch.float16 (fp32 now)"),
    ],
)
def test_what_has_become_of_its_weights_is_told(function: Callable[[], nn.Module], told: str | None) -> None:
    assert baked(build_structure(foreign(function))) == (told and f"made plain weights: {told}")


def test_a_mask_leaves_its_zeros() -> None:
    weight = build_structure(foreign(others.masked)).get_parameter("mid.0.weight")
    assert torch.equal(weight == 0, as_it_was(others.masked).get_buffer("mid.0.weight_mask") == 0)


def test_a_module_that_is_the_same_every_time_is_left_as_it_is() -> None:
    narrow = foreign(others.the_same_every_time).model_copy(update={"layers": {"head": (10, 48), "last.0": (48, 48)}})
    before = others.ONE.last[0].weight.clone()
    build_structure(narrow)
    assert torch.equal(others.ONE.last[0].weight, before)


def test_lazy_layers_get_their_shapes_when_it_is_built() -> None:
    built = build_structure(foreign(others.lazy))
    assert built.get_parameter("head.weight").shape == (10, 40)
    check_rebuildable(built, foreign(others.lazy))


def test_a_network_is_built_with_values_also_by_what_times_it_without() -> None:
    with torch.device("meta"):
        assert not next(build_structure(foreign(others.Looks)).parameters()).is_meta


def test_a_layer_that_is_frozen_stays_so_at_another_width() -> None:
    wider = foreign(others.half_frozen).model_copy(update={"layers": {"stem.0": (44, 1), "stem.1": (44, 44), "mid.0": (48, 44)}})
    learns = {name: parameter.requires_grad for name, parameter in build_structure(wider).named_parameters()}
    assert {name for name, grad in learns.items() if not grad} == {"stem.0.weight", "stem.1.weight", "stem.1.bias"}


@pytest.mark.parametrize(
    ("function", "law"),
    [
        (others.on_the_meta_device, "returned a network on the meta device, expected one with weights"),
        (others.scripted, "returned a TorchScript program, expected a module of Python code"),
        (others.Trains, r"returned a module whose train\(\) returns something else, expected itself"),
        (
            others.Locked,
            r"copied with its weights as parameters \(cannot pickle '_thread.lock' object\); remove what computes its weights",
        ),
        (others.remembers, "remove what computes its weights, as with torch.nn.utils.parametrize.remove_parametrizations or"),
        (others.lazy_for_ever, "beside.weight has no shape yet, expected one that runs all its lazy layers"),
    ],
)
def test_what_cannot_be_taken_in_is_refused_in_a_line_that_tells_the_way_out(function: Callable[[], Any], law: str) -> None:
    with pytest.raises(GenetError, match=law) as refused:
        build_structure(foreign(function))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("function", "seed"), [(others.scaled_by_torch, 1), (others.scaled_by_numpy, 0)])
def test_what_would_not_come_back_from_its_weights_is_refused(function: Callable[[], nn.Module], seed: int) -> None:
    with pytest.raises(GenetError, match="building it again from its weights gave another network"):
        check_rebuildable(build_structure(foreign(function), seed), foreign(function))
