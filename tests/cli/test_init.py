"""`genet init`: what it writes for a folder of images, check accepts and run runs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from genet.config.reader import read_recipe, read_space, shipped_files
from genet.config.recipe import Measure
from genet.latency.workload import Workload
from genet.pipeline import init_timing
from genet.pipeline.context import open_run
from genet.progress import Progress
from tests.fixtures.commands import answer, fault
from tests.fixtures.images import draw_images
from tests.fixtures.simulated import Simulated

SERVED = ("--budget", "5ms", "--budget", "0.5x", "--runtime", "onnxruntime", "--batch", "1")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three classes, to work beside."""
    monkeypatch.chdir(tmp_path)
    return draw_images(tmp_path / "my images", {"cat": 24, "dog": 20, "owl": 22}, size=(40, 36))


def test_what_is_written_for_images_is_accepted_by_check_and_begun_by_run(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answer(capsys, "init", "my.yaml", "--data", images.name, *SERVED)["choices"]
    assert told["images"] == "3 classes, 66 images to train on and 6 to test on, in colour"
    assert told["resolution"] == "32 pixels; half of the images are no larger than 36"
    assert told["formats"].startswith("all but timm")
    assert told["served"] == "by onnxruntime at batch 1"
    assert told["budget"].startswith("5ms (5 ms/image, ")
    recipe = read_recipe("my.yaml")
    assert recipe.data.root == str(images)
    assert 'root: "my images"' in Path("my.yaml").read_text(), "beside the recipe, so that both may be moved"
    assert (recipe.measure.runtime, recipe.measure.batch, *map(str, recipe.select.budgets)) == ("onnxruntime", 1, "5ms", "0.5x")
    checked = answer(capsys, "check", "my.yaml")
    assert (checked["classes"], checked["images_to_train"], checked["images_held_out"]) == (3, 50, 16)
    with open_run(tmp_path / "run", Progress(), recipe) as job:
        assert (job.splits.train.size, job.meter.setting.runtime) == (50, "onnxruntime")


def test_on_a_busy_machine_each_call_chooses_the_same_space_and_tells_how_far_timings_spread(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(1)
    busy = Simulated(lambda part: 7.0, lambda number: draw.choice((1.0, 1.0, 2.0, 5.0, 30.0)))
    monkeypatch.setattr(init_timing, "meter_of", lambda measure: busy)
    told = [answer(capsys, "init", f"{name}.yaml", "--data", images, "--budget", "5ms")["choices"]["space"] for name in "abcd"]
    spaces = {read_space(f"{name}-space.yaml").model_copy(update={"name": "same"}) for name in "abcd"}
    assert len(spaces) == 1
    assert all("takes 7 ms per batch here (the shortest of timings that spread by " in each for each in told)
    assert any("other work disturbs this machine" in each for each in told)


def machine(monkeypatch: pytest.MonkeyPatch, every_ms: float, one_ms: float) -> set[tuple[str, int | None]]:
    """Two threads on which the MasterNet takes so long, and with one of them so long; the smallest network a tenth of it.

    Returns what is timed, "smallest" or "masternet", and the threads asked for.
    """
    timed = set[tuple[str, int | None]]()

    def meter(measure: Measure) -> Simulated:
        own_ms = one_ms if measure.threads == 1 else every_ms

        def ms(part: Workload) -> float:
            smallest = " d0 " in part.name
            timed.add(("smallest" if smallest else "masternet", measure.threads))
            return own_ms / 10 if smallest else own_ms

        found = Simulated(ms)
        card = found.setting.device.model_copy(update={"kind": "cpu", "processors": measure.threads or 2})
        found.setting = found.setting.model_copy(update={"device": card, "batch": measure.batch})
        return found

    monkeypatch.setattr(init_timing, "meter_of", meter)
    return timed


def test_before_a_budget_is_given_it_tells_what_is_in_reach_and_on_what_that_was_measured(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = machine(monkeypatch, 7.0, 70.0)
    told = answer(capsys, "init", "my.yaml", "--data", images, "--batch", "2")["choices"]
    assert timed == {("masternet", None), ("masternet", 1), ("smallest", None)}, "numbers of threads are compared once"
    assert told["in reach"].startswith(
        "budgets of about 0.7ms (0.35 ms/image, 0.1x) or more, the latency of the network with the fewest MACs"
    )
    assert "2 threads" in told["latencies"]
    assert told["budget"].startswith("none given, so 0.8x (5.6 ms per batch of 2, 2.8 ms/image); 0.5x")
    assert told["threads"] == "all 2: the MasterNet takes 70 ms per batch with 1 and 7 with 2"
    assert read_recipe("my.yaml").measure.threads is None


def test_a_budget_that_no_network_on_offer_reaches_is_told(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 7.0, 70.0)
    told = answer(capsys, "init", "my.yaml", "--data", images, "--budget", "0.001ms", "--budget", "5ms", "--batch", "1")[
        "choices"
    ]
    hopeless, met = told["budget"].split("; ")
    assert hopeless.endswith(", probably out of reach")
    assert met.startswith("5ms (")
    assert met.endswith("x)")


@pytest.mark.parametrize(("given", "threads"), [((), 1), (("--threads", "2"), 2)])
def test_one_thread_is_chosen_if_it_is_faster_unless_their_number_is_given(
    given: tuple[str, ...], threads: int, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 1.4, 1.0)
    told = answer(capsys, "init", "my.yaml", "--data", images, "--batch", "1", *given)["choices"]
    assert read_recipe("my.yaml").measure.threads == threads
    assert told.get("threads") == (
        None if given else "1, which is faster: the MasterNet takes 1 ms per batch with 1 and 1.4 with 2"
    )
    assert f"takes {1.4 if given else 1:g} ms per batch here" in told["space"]
    assert f", {threads} thread" in told["latencies"]


def test_the_columns_of_comments_stay_as_they_were(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, 7.0, 7.0)
    answer(capsys, "init", "my.yaml", "--data", images, "--runtime", "onnxruntime")
    for name, file in (("recipe", "my.yaml"), ("space", "my-space.yaml")):
        before = [line for line in shipped_files("templates")[name].read_text().splitlines() if "  # " in line]
        after = [line for line in Path(file).read_text().splitlines() if "  # " in line]
        assert len(after) == len(before)
        for one, other in zip(before, after, strict=True):
            assert one.rindex("# ") == other.rindex("# ") or '"NAME' in one


def test_without_images_the_template_stays_but_for_what_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer(capsys, "init", "plain.yaml")
    answer(capsys, "init", "asked.yaml", *SERVED)
    plain, asked = (Path(f"{name}.yaml").read_text().splitlines() for name in ("plain", "asked"))
    changed = {other.split()[0] for one, other in zip(plain, asked, strict=True) if one.replace("plain", "asked") != other}
    assert changed == {"runtime:", "batch:", "budgets:"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "5s"), "--budget must be milliseconds per batch such as 5ms"),
        (("--runtime", "onnx"), "--runtime must be"),
        (("--batch", "0"), "--batch must be greater than or equal to 1"),
        (("--data", "nowhere"), "nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    options: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fault(capsys, "init", "my.yaml", *options).startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_is_written_for_images_is_run_to_its_end(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "init", "my.yaml", "--data", images, *SERVED)
    brief = ("--set", "train.epochs=6", "--set", "distill.epochs=1", "--set", "search.joint_trials=2", "--any-master")
    found = answer(capsys, "run", "my.yaml", *brief, "--set", "measure.calibration_networks=3", "--budget", "100x")
    assert [outcome["budget"] for outcome in found["outcomes"]] == ["100x"]
