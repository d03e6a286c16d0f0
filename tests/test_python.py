"""The Python API: what `import genet` offers, on a finished run."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import genet
from genet.config.budget import Budget
from genet.errors import DataError, GenetError, RunError, SpecError
from genet.export.opening import CPU, open_network
from genet.pipeline.run_folder import RunFolder
from genet.search.outcome import Outcomes
from genet.training.pixels import Preprocess
from tests.fixtures.small import NETWORK


def rows(table: object) -> list[dict[str, object]]:
    """Dictionaries, whether pandas is installed or not."""
    found: list[dict[str, object]] = table if isinstance(table, list) else table.to_dict("records")  # type: ignore[attr-defined]
    return found


def test_the_tables_of_a_run_hold_what_its_files_hold(finished: RunFolder) -> None:
    run = genet.Run(finished.path)
    (first, *_) = rows(run.outcomes)
    assert (finished.path / "networks").samefile(Path(str(first["folder"])).parents[1])
    assert first["budget"] == str(run.recipe.select.budgets[0])
    assert run.exports[str(first["budget"])] == Path(str(first["folder"]))
    assert first["name"] in {row["name"] for row in rows(run.networks)}
    assert len(rows(run.trials)) == len(finished.trials.read().records)
    kinds = {row["kind"] for row in rows(run.latency)}
    assert kinds == {"block", "network"}
    assert all(float(str(row["ms"])) > 0 for row in rows(run.latency))


def test_the_network_handed_out_answers_to_pictures_and_names_its_classes(finished: RunFolder, tmp_path: Path) -> None:
    (first, *_) = rows(genet.Run(finished.path).outcomes)
    network = genet.load(str(first["folder"]))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    logits = network(network.preprocess(tmp_path / "red.png", Image.new("L", (8, 8))))
    assert logits.shape == (2, 10)
    assert network.labels == tuple(map(str, range(10)))
    assert str(first["name"]) in str(network.card)
    assert set(network.state_dict()) == set(torch.nn.Module.state_dict(genet.load(str(first["folder"]))))


def test_the_examples_of_the_page_run(finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/digits").symlink_to(finished.path)
    page = Path(genet.__file__).parents[1] / "docs" / "python.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert (found.attempted, found.failed) == (10, 0)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"got a folder without recipe\.yaml, expected a run folder"):
        genet.Run(tmp_path)


def test_a_budget_finds_its_exports_in_any_form_and_one_that_is_none_is_told_those_there_are(finished: RunFolder) -> None:
    exports = genet.Run(finished.path).exports
    (met,) = exports
    outcomes = finished.read(finished.results, Outcomes)
    ms = Budget.parse(met).ms(outcomes.masternet_ms_per_image, 1)
    same = {"2.0x": exports[met], "2.00x": exports[met], repr(ms): exports[met], f"{ms!r}ms/image": exports[met]}
    assert {form: exports[form] for form in same} == same
    with pytest.raises(RunError, match=r"got budget 5x, expected one of 2x; genet\.design\(folder=.*, budget='5x'\)"):
        exports["5x"]
    with pytest.raises(RunError, match=r"got budget 0\.000001, expected one of 2x; see run\.shortfalls for the reason"):
        exports["0.000001"]
    with pytest.raises(RunError, match=r"got budget fast, expected one of 2x; a budget is 5ms"):
        exports["fast"]


def test_a_run_folder_is_told_from_a_networks_and_names_its_networks(finished: RunFolder, tmp_path: Path) -> None:
    (first, *_) = sorted((finished.path / "networks").iterdir())
    for read in (genet.load, genet.measure_latency, lambda folder: open_network(str(folder), CPU)):
        with pytest.raises(GenetError) as told:
            read(finished.path)
        assert f"{finished.path}: got the folder of a run, expected that of a network; name one of its networks, {first}" in str(
            told.value
        )
    with pytest.raises(GenetError, match=r"got no such folder, expected a network's folder, which has network\.yaml"):
        genet.load(tmp_path / "gone")


@pytest.mark.parametrize(
    ("images", "law"),
    [
        (["gone.png"], r"preparing .*gone\.png failed \(no such file\): expected an image that decodes; check the path"),
        (["notes.txt"], r"preparing .*notes\.txt failed \(Pillow does not read it\): .*; repair it"),
        (["."], r"preparing .* failed \(.*directory"),
        ([], "got none, expected files or images of Pillow"),
        ([["a.png", "b.png"]], "got a list, expected files or images of Pillow, each an argument of its own"),
        ([Image.new("F", (8, 8))], r"preparing an image of Pillow failed \(its pixels are fractions"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(
    images: list[Any], law: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("none")
    with pytest.raises(DataError, match=law):
        Preprocess(NETWORK.input)(*images)


def test_a_module_and_a_name_are_timed_alike() -> None:
    module, example = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(2, 3, 16, 16)
    found = genet.measure_latency(module, example, device="cpu")
    assert found.ms > 0
    assert found.setting.batch == 2
    assert genet.measure_latency(str(NETWORK), device="estimate:v100", batch=8).setting.batch == 8


@pytest.mark.parametrize(
    ("network", "example", "setting", "law"),
    [
        (nn.ReLU(), None, {}, "got none for an example"),
        (nn.ReLU(), torch.zeros(3), {}, r"got a tensor of \(3,\) for an example"),
        (nn.ReLU(), [1, 3, 8, 8], {}, "got a list for an example, expected .*; give a tensor"),
        (nn.ReLU, torch.zeros(1, 3, 8, 8), {}, "got the class ReLU, expected a torch.nn.Module"),
        (
            nn.Linear(9, 2),
            torch.zeros(1, 3, 8, 8),
            {},
            "Linear failed to run on .*; give an example that it reads",
        ),
        ("timm:resnet10t", torch.zeros(1, 3, 8, 8), {}, "got an example, expected none beside a name"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(network: object, example: object, setting: dict[str, str], law: str) -> None:
    with pytest.raises(GenetError, match=law):
        genet.measure_latency(network, example, **setting)  # type: ignore[arg-type]


def test_reports_are_shown_in_a_line() -> None:
    shown = repr(genet.measure_latency(str(NETWORK), device="estimate:v100", batch=8))
    assert re.fullmatch(r"LatencyReport\(@12x1 .*: [\d.]+ ms per batch of 8, spread 0\.0%, \d+ layers, .*v100.*\)", shown)
    assert len(shown) < 300


def test_a_setting_at_fault_is_named_without_dashes() -> None:
    with pytest.raises(SpecError, match=r"^dtype must be"):
        genet.measure_latency(str(NETWORK), dtype="fp7")


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = genet.nonsense  # type: ignore[attr-defined]


def test_the_public_names_are_offered_before_they_are_imported() -> None:
    told = subprocess.run([sys.executable, "-c", "import genet; print(*dir(genet))"], capture_output=True, text=True, check=True)
    assert set(told.stdout.split()) == {*genet.__all__, "__version__"}
