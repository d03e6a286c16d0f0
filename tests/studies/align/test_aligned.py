"""`genet.align`: the same as the command finds, for a module at hand, with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import genet
from genet.arch.network import Network
from genet.config.overrides import overrides_of_serving
from genet.config.reader import read_recipe, to_yaml
from genet.errors import EvidenceError, GenetError
from genet.pipeline.run_folder import RunFolder
from genet.studies.align.steps import measure_for
from tests.fixtures.align_networks import conv
from tests.fixtures.commands import answer
from tests.fixtures.pretend_gpu import pretend_gpu

V100: dict[str, Any] = {"device": "estimate:v100", "dtype": "fp16", "runtime": "cudagraph"}
OURS = "@32x3 | Conv k3 c24 s1 | XX k3 c72 s2 d2 | BL k3 c200 s2 d2 r0.4 | Conv k1 c320 | 10"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `runs/align` is written."""
    monkeypatch.chdir(tmp_path)


def small() -> nn.Sequential:
    """For digits, with widths off the edges."""
    torch.manual_seed(0)
    return nn.Sequential(conv(1, 40), conv(40, 72, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(72, 10))


def test_a_module_is_aligned_as_the_command_does_and_stays_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    module, images = small(), torch.randn(512, 1, 8, 8)
    before = module.eval()(images[:2])
    found = genet.align(module, images, param_tolerance=0.9, **V100)
    assert capsys.readouterr().out == ""
    assert torch.equal(module(images[:2]), before)
    assert found.ms < found.before_ms
    assert found.module is not None
    assert found.widths == {name: found.module.get_submodule(name).out_channels for name in found.widths} != {}
    assert found.module(images[:2]).shape == (2, 10)
    options = [text for name, value in V100.items() for text in (f"--{name}", value)]
    own = ("align", f"{__name__}:small", "--example", "1,1,8,8", "--batch", "512", "--param-tolerance", "0.9")
    told = answer(capsys, *own, *options)
    assert (told["widths"], told["ratio"]) == (found.widths, found.ratio)


def test_a_network_of_super_blocks_is_aligned_by_its_name() -> None:
    found = genet.align(OURS, batch=512, target_ratio=0.3, **V100)
    assert isinstance(found.network, Network)
    assert found.network.superblocks[0].width == found.widths["stages.0"]
    assert found.module is None
    assert "target_ratio: got 0.3, expected a ratio " in found.shortfall
    shown = f"Aligned({found.network.name}: {found.before_ms:.4g} to {found.ms:.4g} ms per batch, ratio {found.ratio:.3f}, "
    assert repr(found).startswith(shown)
    assert repr(found).endswith(f" widths, {found.shortfall})")
    assert "their best is " in found.shortfall
    assert "--" not in found.shortfall


def test_with_images_the_most_important_channels_are_kept_at_the_target() -> None:
    found = genet.align(small(), torch.zeros(512, 1, 8, 8), data="digits", target_ratio=0.8, **V100)
    assert found.ratio <= 0.8
    assert found.module is not None
    assert str(found.network).endswith(" | 10")
    assert found.module(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("asked", [{"param_tolerance": 0.9}, {"data": "digits", "target_ratio": 0.9}])
def test_the_result_is_in_the_number_format_and_on_the_device_of_what_was_given(asked: dict[str, Any]) -> None:
    with pretend_gpu(half=False):
        given = small().to("cuda", torch.bfloat16)
        found = genet.align(given, torch.zeros(512, 1, 8, 8), **asked, **V100)
        assert found.module is not None
        for module in (given, found.module):
            assert {(each.device.type, each.dtype) for each in module.parameters()} == {("cuda", torch.bfloat16)}


@pytest.mark.parametrize(
    ("network", "example", "asked", "law"),
    [
        (nn.ReLU(), None, {}, "got none for an example, expected (images, channels, size, size)"),
        (nn.ReLU(), torch.zeros(1, 3, 8, 9), {}, "got a tensor of (1, 3, 8, 9) for an example"),
        (nn.ReLU(), [1, 3, 8, 8], {}, "got a list for an example"),
        (OURS, torch.zeros(1, 3, 8, 8), {}, "got an example, expected none beside a name"),
        (
            OURS,
            None,
            {"target_ratio": 1.5, "mode": "speed"},
            "mode must be latency or accuracy (got speed)\ntarget_ratio must",
        ),
        (
            OURS,
            None,
            {"data": "digits"},
            "target_ratio: got none with data, expected the latency to reach",
        ),
        (
            OURS,
            None,
            {"data": "digits", "target_ratio": 0.5, "param_tolerance": 0.2, "solver": "exact"},
            "param_tolerance: got data too, expected one of them, as importance chooses widths and channels itself; "
            "leave one out\nsolver exact: got data too",
        ),
        (small(), torch.zeros(2, 1, 8, 8), {"exclude": "layer9"}, "exclude: got 'layer9'"),
        (
            small(),
            torch.zeros(512, 1, 8, 8),
            {"data": "digits", "target_ratio": 0.01, **V100},
            "target_ratio: got 0.01, expected a ratio that the smallest network on offer reaches",
        ),
        (
            OURS,
            None,
            {"data": "digits", "target_ratio": 0.5},
            "data: got a network of super-blocks, which is trained from scratch",
        ),
        (OURS, None, {"memory_format": "nchw"}, "memory_format must be"),
        ("timm:test_byobnet", None, {"data": "digits", "target_ratio": 0.5}, "or the module itself with its weights"),
        (f"{__name__}:small", None, {}, "got the name of a function, expected its network; give that and an example"),
    ],
)
def test_what_cannot_be_is_named_as_it_was_given(network: Any, example: Any, asked: dict[str, Any], law: str) -> None:
    with pytest.raises(GenetError) as told:
        genet.align(network, example, **asked)
    assert law in str(told.value)
    assert "--" not in str(told.value)


def test_a_network_of_a_run_is_measured_as_by_its_recipe_with_the_keys_of_an_earlier_version(tmp_path: Path) -> None:
    recipe = read_recipe("digits", overrides_of_serving([], {"batch": "48"}))
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe).replace("calibration_networks", "networks"))
    assert measure_for({}, RunFolder(tmp_path)).batch == 48


def test_nothing_to_gain_is_an_error() -> None:
    with pytest.raises(EvidenceError, match=r"nothing to gain|certain to be faster"):
        genet.align("@8x1 | Conv k3 c16 s1 | XX k3 c16 s2 d1 | Conv k1 c16 | 10", batch=1, **V100)


def test_a_fault_of_the_images_names_the_argument() -> None:
    with pytest.raises(GenetError, match="expected the folder of the images; give data=FOLDER, where they are now"):
        genet.align(small(), torch.zeros(8, 1, 8, 8), data="nowhere", target_ratio=0.7)
