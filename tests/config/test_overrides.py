"""Values of the command line in a recipe: judged by its own checks, and named by their options."""

from __future__ import annotations

from pathlib import Path

import pytest

from genet.arch.network import Network
from genet.config.budget import Budget
from genet.config.overrides import Override, read_settings
from genet.config.reader import read_recipe, to_yaml
from genet.errors import SpecError
from tests.fixtures.commands import fault
from tests.fixtures.tiny import RECIPE, SPACE, write_recipe

SHAPE = "Conv k3 c8 s2 | XX k3 c16 s2 d1 | Conv k1 c32"


def test_values_are_yaml_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    given = ["train.epochs=5", "train.mixup=2e-1", "augment.crop=2", "space.perturb.depth=[0, 1]", "measure.batch=8"]
    file = write_recipe(tmp_path, RECIPE + "augment: none\n")
    found = read_recipe(file, [*read_settings([*given, "train.teacher="]), Override("--batch", "measure.batch", "1")])
    assert (found.train.epochs, found.train.mixup, found.train.teacher) == (5, 0.2, None)
    assert (found.augment.crop if found.augment else None, found.space.perturb.depth, found.measure.batch) == (2, (0, 1), 1)
    assert found.master == read_recipe(file).master
    (tmp_path / "run.yaml").write_text(to_yaml(found))
    assert read_recipe(tmp_path / "run.yaml") == found


def test_a_space_and_a_value_of_it_may_both_be_given(tmp_path: Path) -> None:
    found = read_recipe(write_recipe(tmp_path), read_settings(["space.name=mine", "space=digits"]))
    assert (found.space.name, len(found.space.superblocks)) == ("mine", 4)


def test_masternets_may_be_notations_and_files_looked_for_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notation, mine = f"@16x1 | {SHAPE} | 10", Network.parse(f"@16x1 | {SHAPE.replace('c16', 'c24')} | 10", name="mine")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.yaml").write_text(to_yaml(mine))
    monkeypatch.chdir(tmp_path / "here")
    given = f'space.masternets=[known, "{notation}", mine.yaml]'
    found = read_recipe(write_recipe(tmp_path, space=SPACE + "masternets: [gone.yaml]\n"), read_settings([given]))
    group, named, own = found.space.masternets or ()
    assert (group, str(named), own) == ("known", notation, mine)
    with pytest.raises(SpecError) as told:
        read_recipe(write_recipe(tmp_path), read_settings(['space.masternets=["@16x1 | Conv k3 c8", none.yaml]']))
    assert told.value.faults[0].startswith("--set space.masternets: masternets[0]: ")
    with pytest.raises(SpecError, match="; put a notation in quotes, as in "):
        read_recipe(write_recipe(tmp_path), read_settings([f"space.masternets=[{notation}]"]))


def test_all_faults_are_told_at_once_each_by_its_option(tmp_path: Path) -> None:
    given = ["train.epoch=5", "trian.epochs=5", "train={epochs: 0, learning_rate: 1}", "seed.x=1", "select.measure_top_k=2.5"]
    budgets = Override("--budget", "select.budgets", "[5ms, 5s]")
    with pytest.raises(SpecError) as told:
        read_recipe(write_recipe(tmp_path), [*read_settings(given), budgets])
    assert told.value.faults == (
        "--budget must be milliseconds per batch such as 5ms or per image such as 0.2ms/image, or a multiple of the MasterNet's "
        "such as 0.5x (got '5s')",
        "--set seed.x is not a key here: seed must be a whole number",
        "--set select.measure_top_k must be a whole number (got 2.5)",
        "--set train.epochs must be at least 1 (got 0); nearest 1",
        "--set trian.epochs is not a key here; did you mean train.epochs?",
    )


@pytest.mark.parametrize(
    ("given", "law"),
    [
        ("train.optimiser.momentum=0.9", "--set train.optimiser.momentum is not a key here; did you mean train.momentum?"),
        ("epochs=5", "--set epochs is not a key here; did you mean train.epochs?"),
        ("train={epoch: 2, learning_rate: 1, epochs: 2}", "--set train.epoch is not a key here; did you mean train.epochs?"),
        ("train.nonsense=1", "--set train.nonsense is not a key here"),
        ("spcae.perturb.depth=[0]", "--set spcae.perturb.depth is not a key here; did you mean space.perturb.depth?"),
        ("select.budgets.0=5ms", "--set select.budgets.0 is not a key here: select.budgets must be a list; give the whole list"),
        ("select.budgets=5ms", "--set select.budgets must be a list (got '5ms')"),
        ("select.method.name=exact", "--set select.method.name is not a key here: select.method must be exact or random"),
        ("train.epochs=ten", "--set train.epochs must be a whole number (got 'ten')"),
        ("train={epochs: 2}", "--set train.learning_rate must be given"),
        ("train.clip=1", "--set train.clip is not a key here; it is called clip_grad_norm now"),
    ],
)
def test_a_key_is_named_once_wherever_the_fault_lies(tmp_path: Path, given: str, law: str) -> None:
    with pytest.raises(SpecError) as told:
        read_recipe(write_recipe(tmp_path), read_settings([given]))
    assert told.value.faults == (law,)


def test_an_unknown_key_is_refused_with_the_nearest_one_beside_the_faults_of_the_file(tmp_path: Path) -> None:
    file = write_recipe(tmp_path, RECIPE.replace("epochs: 3", "epochs: 0"))
    with pytest.raises(SpecError) as told:
        read_recipe(file, read_settings(["train.epoch=5"]))
    first, second = told.value.faults
    assert first == "--set train.epoch is not a key here; did you mean train.epochs?"
    assert second.startswith(f"{file}:6:18: master.epochs: must be at least 1 (got 0)")


def test_joint_trials_as_long_as_full_trainings_are_refused_beside_all_other_faults(tmp_path: Path) -> None:
    file, single = write_recipe(tmp_path), Override("--set train.epochs", "train.epochs", "1")
    assert read_recipe(file, [single]).train.epochs == 1, "without joint trials"
    with pytest.raises(SpecError) as told:
        read_recipe(file, [single, *read_settings(["search.joint_trials=4", "master.epochs=0"])])
    first, second = told.value.faults
    assert "master.epochs must be at least 1" in first
    assert "train: must have at least 2 epochs, as joint trials are shorter; raise epochs, or set" in second


@pytest.mark.parametrize("text", ["train.epochs", "=5", "train..epochs=5", "train.=5", "a b=5", ""])
def test_what_is_no_key_and_value_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--set must be KEY=VALUE such as train\.epochs=5 \(got"):
        read_settings([text])


@pytest.mark.parametrize("value", ["[", "{a: 1", "&a 5", "*a", "a: b: c", "[*a, &a 1]"])
def test_what_is_no_yaml_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^--set train\.epochs must be "):
        read_recipe(write_recipe(tmp_path), read_settings([f"train.epochs={value}"]))


def test_budgets_of_the_command_line_take_the_place_of_the_files(tmp_path: Path) -> None:
    found = read_recipe(write_recipe(tmp_path), [Override("--budget", "select.budgets", "[5ms, 0.2]")])
    assert found.select.budgets == (Budget(5.0, "ms"), Budget(0.2, "ms/image"))


@pytest.mark.parametrize(
    ("given", "law"),
    [
        ("master={[a]: 1}", "--set master: a key must be a plain word"),
        ("train={epochs: 3, epochs: 4}", "epochs: must be given once, but is there twice"),
    ],
)
def test_a_value_with_odd_keys_is_refused_in_a_line(
    given: str, law: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert law in fault(capsys, "run", write_recipe(tmp_path), "--set", given)
