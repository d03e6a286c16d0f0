"""`genet latency`, `genet staircase`, and jobs whose latencies come from elsewhere, as a user meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genet.cli import main as cli
from genet.config.reader import read_recipe
from genet.latency.table import LatencyTable, settings
from genet.pipeline.context import open_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.fit import fit_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import profile_device
from genet.pipeline.run_folder import RunFolder
from genet.progress import Progress
from genet.search.certificate import Selection
from genet.search.outcome import Outcomes
from genet.storage import Journal
from tests.fixtures.commands import answer, fault
from tests.fixtures.tiny import RECIPE, write_recipe

V100 = ("--device", "estimate:v100", "--dtype", "fp16")
STAIRS = "width,latency_ms\n" + "".join(f"{8 * n},{1.0 + 0.5 * ((n - 1) // 4)}\n" for n in range(1, 17))


def test_an_estimate_is_labelled_and_needs_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "latency", "genet-light", *V100)
    assert (found["estimate"], found["device"], found["batch"]) == (True, "estimate:v100", 64)
    assert found["ms"] == pytest.approx(64 * found["ms_per_image"])
    assert found["bound"] in ("host", "device")
    assert len(found["layers"]) == found["ops"]
    assert cli.main(["latency", "genet-light", *V100]) == 0
    assert "estimated, not measured" in capsys.readouterr().out


def test_a_calibrated_network_reads_back_what_it_was_calibrated_with(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "latency", "genet-normal", *V100, "--calibrate", "genet-normal=12.8")
    assert found["ms"] == pytest.approx(12.8)
    assert found["device"].startswith("estimate:v100 x ")
    assert "got 'genet-normal=fast', expected NETWORK=MS" in fault(
        capsys, "latency", "genet-normal", *V100, "--calibrate", "genet-normal=fast"
    )
    assert "expected --device estimate:GPU" in fault(capsys, "latency", "genet-light", "--calibrate", "genet-light=1")


def test_an_estimate_is_corrected_by_the_evidence_of_its_gpu_and_of_no_other(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notation = str(read_recipe(finished.recipe_file).space.masternet(16))
    graphs = ("--device", "estimate:v100", "--runtime", "cudagraph")
    plain = answer(capsys, "latency", notation, *graphs)
    assert "expected rows of that GPU" in fault(capsys, "latency", notation, *graphs, "--calibrate", str(finished.latency.path))
    (setting,) = settings(finished.latency).values()
    gpu = setting.model_copy(
        update={"device": setting.device.model_copy(update={"name": "Tesla V100-SXM2-16GB", "kind": "cuda"})}
    )
    evidence = LatencyTable(Journal(tmp_path / "v100.jsonl"), gpu)
    evidence.adopt(LatencyTable(finished.latency, setting))
    corrected = answer(capsys, "latency", notation, *graphs, "--calibrate", str(tmp_path / "v100.jsonl"))
    assert "corrected by" in corrected["device"]
    assert corrected["ms"] > 1.2 * plain["ms"]  # the rows are those of a processor


def test_a_measurement_here_lists_the_layers_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "latency", "BL k3 c16 r0.5 @8", "--device", "cpu", "--batch", "2")
    assert (found["estimate"], found["runtime"]) == (False, "eager")
    names = [layer["name"] for layer in found["layers"]]
    assert names.index("0.conv1_1x1.conv") < names.index("0.conv2_kxk.conv") < names.index("0.conv3_1x1.conv")


def test_layers_are_told_with_their_shares_and_without_what_the_device_does_not_tell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heads = {}
    for device in ("cpu", "estimate:v100"):
        assert cli.main(["latency", "BL k3 c16 r0.5 @8", "--device", device, "--batch", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        heads[device] = next(line.split() for line in lines if line.startswith("layer "))
        assert re.fullmatch(r"  the layers timed one by one take [\d.]+ ms in all, \d+% of the whole network", lines[-1])
        first = lines.index(next(line for line in lines if "ms per batch, " in line))
        assert re.search("repeats spread by|too noisy to tell|estimated, not measured", lines[first - 1])
    assert heads["cpu"] == ["layer", "kind", "ms", "share"]
    assert heads["estimate:v100"][:5] == ["layer", "kind", "ms", "share", "waves"]


def test_a_sweep_whose_noise_hides_all_steps_tells_no_staircase(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, noisy = tmp_path / "sweep.csv", tmp_path / "noisy.csv"
    sweep.write_text(STAIRS)
    rows = [line.split(",") for line in STAIRS.splitlines()[1:]]
    noisy.write_text("width,latency_ms,sigma\n" + "".join(f"{w},{ms},{0.4 * float(ms)}\n" for w, ms in rows))
    told = {}
    for file in (sweep, noisy):
        assert cli.main(["staircase", "--from", str(file)]) == 0
        told[file] = capsys.readouterr().out
    assert re.search(r"^too noisy to tell \(\d+%\): latencies within that count as equal", told[noisy], re.MULTILINE)
    assert all(word not in told[noisy] for word in ("edge", "candidate", "plateaus"))
    assert told[sweep].splitlines()[1].startswith("latencies within 2.")
    assert "edges: 32, 64, 96" in told[sweep]
    assert answer(capsys, "staircase", "--from", noisy)["too_noisy"] is True


def test_the_machine_tells_what_it_can_tell_apart(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "latency", "XX k3 c8 @4", "--repeatability", "--device", "cpu", "--batch", "1")
    assert found["in_turn"] > 0
    assert found["apart"] > 0


def test_sweeps_over_batch_size_and_width_are_tables_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "sweep.svg"
    found = answer(capsys, "latency", "genet-light", *V100, "--sweep", "batch=1..8", "--plot", str(picture))
    assert found["curves"][0]["values"] == [1, 2, 4, 8]
    assert picture.read_text().startswith("<svg")
    pair = ("XX k3 c64 @14", "BL k3 c64 r0.25 @14")
    found = answer(capsys, "latency", *pair, *V100, "--sweep", "width=32..96:32")
    assert [curve["name"] for curve in found["curves"]] == list(pair)
    assert found["estimate"] is True
    found = answer(capsys, "latency", "genet-light", *V100, "--runtime", "cudagraph", "--sweep", "size=128,192")
    assert found["curves"][0]["ms"][0] < found["curves"][0]["ms"][1]


def test_what_moved_between_two_evidence_files_is_told(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = finished.latency.read().records
    slower = Journal(tmp_path / "slower.jsonl")
    for record in lines:
        value = record["value"]
        if record["row"] == "block":
            value = {**value, "ms": 2 * value["ms"]}
        slower.append({**record, "value": value})
    found = answer(capsys, "latency", "diff", str(finished.latency.path), str(slower.path))
    (difference,) = found["differences"]
    assert difference["facts"] == []
    assert difference["rows"][0]["after_ms"] == pytest.approx(2 * difference["rows"][0]["before_ms"])
    assert "no latencies" in fault(capsys, "latency", "diff", str(slower.path), __file__)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["latency"], "got nothing to time"),
        (["latency", "timm:resnet5", *V100], "nearest: resnet50"),
        (["latency", "genet-lihgt", *V100], "genet-light"),
        (["latency", "genet-light", "--device", "estimate:v1000"], "did you mean v100"),
        (["latency", "genet-light", "--batch", "0"], "--batch must be greater than or equal to 1 (got 0)"),
        (["latency", "genet-light", "--dtype", "fp8"], "--dtype must be 'fp32', 'fp16', 'bf16' or 'int8' (got 'fp8')"),
        (
            ["latency", "genet-light", "--dtype", "int8"],
            "bf16 unless device is estimate:GPU and runtime is tensorrt (got 'int8')",
        ),
        (["latency", "XX k3 c64 @14", *V100, "--sweep", "width=96..32"], "not empty"),
        (["latency", "XX k3 c64 @14", *V100, "--sweep", "depth=1..2"], "must be over batch, size, width"),
        (["latency", "genet-light", "--device", "cpu", "--runtime", "cudagraph"], "needs an NVIDIA GPU"),
        (["latency", "genet-light", "--device", "cpu", "--batch", "10000000"], "does not fit into memory at batch 10000000"),
        (["staircase"], "got 0 of BLOCK, --from CSV and --compare"),
        (["staircase", "XX k3 c64 @14", *V100, "--widths", "64..32"], "not empty"),
        (
            ["staircase", "BL k3 c64 r0.25 @14", *V100, "--widths", "8..30"],
            "expected at least 2; BL k3 c8 r0.25 @14: ratio",
        ),
        (["staircase", "ZZ k3 c64 @14", *V100], "ZZ"),
        (["staircase", "--from", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_a_fault_is_said_with_the_way_out(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in fault(capsys, *arguments)


def test_a_sweep_in_a_file_gives_edges_candidates_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, picture = tmp_path / "sweep.csv", tmp_path / "stairs.svg"
    sweep.write_text(STAIRS)
    found = answer(capsys, "staircase", "--from", str(sweep), "--plot", str(picture))
    assert found["edges"] == [32, 64, 96]
    assert found["candidates"] == [32, 64, 96, 128]
    assert found["utilization"][:4] == [0.25, 0.5, 0.75, 1.0]
    assert picture.read_text().startswith("<svg")


def test_all_faults_of_a_sweep_file_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep.csv"
    sweep.write_text("width,latency_ms\n8,\n16,-1\n24,nan\n16,1\n")
    said = fault(capsys, "staircase", "--from", str(sweep)).splitlines()
    assert [line.split(":")[1] for line in said] == ["2", "3", "4", "5"]


def test_a_measured_staircase_is_kept_as_evidence_and_not_measured_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = tmp_path / "e.jsonl"
    command = ("staircase", "XX k3 c8 @4", "--device", "cpu", "--batch", "1", "--evidence", str(evidence))
    first = answer(capsys, *command, "--widths", "8..24")
    lines = evidence.read_text()
    assert answer(capsys, *command, "--widths", "8..24") == first
    assert evidence.read_text() == lines


def test_widths_aligned_on_two_devices_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for gpu in ("v100", "h200"):
        files.append(str(tmp_path / f"{gpu}.jsonl"))
        answer(
            capsys, "staircase", "Conv k3 c512>512 @7", "--device", f"estimate:{gpu}", "--dtype", "fp16", "--evidence", files[-1]
        )
    found = answer(capsys, "staircase", "--compare", *files)
    (place,) = found["places"]
    assert set(place["both"]) == set(place["first"]) & set(place["second"])
    assert found["cost_first"] >= 0


@pytest.mark.slow
def test_a_whole_job_on_an_estimate_is_labelled_so_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path)
    served = ("--device", "estimate:t4", "--runtime", "cudagraph", "--batch", "1")
    given = ("--set", "train.epochs=1", "--set", "augment={crop: 1}", "--budget", "0.00001ms", "--budget", "2.0x")
    found = answer(capsys, "run", str(recipe), "--run", str(tmp_path / "run"), *served, *given)
    folder = RunFolder(tmp_path / "run")
    kept = folder.recipe()
    assert (kept.measure.device, kept.measure.runtime, kept.measure.batch) == ("estimate:t4", "cudagraph", 1)
    assert (kept.train.epochs, str(kept.augment), [*map(str, kept.select.budgets)]) == (1, "crop 1", ["0.00001ms", "2x"])
    assert Outcomes.load(folder.results).setting.estimate
    assert "estimates" in folder.report.read_text()
    (export, *_) = [row["export"] for row in found["outcomes"]]
    card = ((folder.path / export).parent / "card.md").read_text()
    assert "estimated latency" in card
    assert "measured latency" not in card


@pytest.mark.slow
def test_a_job_runs_on_the_evidence_of_another_machine(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text(finished.latency.path.read_text())
    recipe = write_recipe(tmp_path)
    answer(capsys, "run", str(recipe), "--run", str(tmp_path / "run"), "--latency", str(elsewhere))
    folder = RunFolder(tmp_path / "run")
    selection = Selection.load(folder.selection)
    assert selection.setting == Selection.load(finished.selection).setting
    assert all(choice.within is not True or choice.measured_ms_per_image for choice in selection.choices)
    blocks = [record for record in folder.latency.read().records if record["row"] == "block"]
    assert len(blocks) == sum(record["row"] == "block" for record in finished.latency.read().records)


def test_a_finished_run_selects_for_another_device_and_writes_nothing(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("device: cpu", "device: estimate:v100"))
    with open_run(tmp_path / "other", Progress(), read_recipe(recipe)) as job:
        profile_device(job)
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    found = answer(capsys, "select", str(finished.path), "--latency", str(tmp_path / "other" / "latency.jsonl"))
    assert found["choices"]
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


def test_evidence_of_the_same_device_with_other_widths_is_selected_from_by_its_own_staircases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an estimate, as a machine's own staircases may keep other widths by chance."""
    recipe = read_recipe(write_recipe(tmp_path, RECIPE.replace("device: cpu", "device: estimate:v100")))
    with open_run(tmp_path / "other", Progress(), recipe) as job:
        for step in (profile_device, train_master, run_planned_trials, fit_trials):
            step(job)
    run, narrower = job.folder, tmp_path / "narrower.jsonl"
    lines = run.latency.path.read_text().splitlines(keepends=True)
    narrower.write_text("".join(line for line in lines if '"width":24' not in line and '"in_width":24' not in line))
    assert len(narrower.read_text()) < run.latency.path.stat().st_size
    found = answer(capsys, "select", str(run.path), "--latency", str(narrower))
    assert all("c24" not in choice["network"] for choice in found["choices"])  # type: ignore[index,attr-defined]


def test_evidence_of_another_space_is_refused_and_broken_lines_are_named(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = finished.latency.path.read_text().splitlines(keepends=True)
    file = tmp_path / "e.jsonl"
    blocks = [number for number, line in enumerate(lines) if '"row":"block"' in line]
    file.write_text("".join(line for number, line in enumerate(lines) if number not in blocks[2:]))
    recipe = write_recipe(tmp_path)
    said = fault(capsys, "run", str(recipe), "--run", str(tmp_path / "run"), "--latency", str(file))
    assert "got no latency for any width" in said or "must hold the blocks of this space" in said
    torn = [line if number != blocks[0] else line.replace('"ms":', '"mz":', 1) for number, line in enumerate(lines)]
    file.write_text("".join(torn))
    cli.main(["select", str(finished.path), "--latency", str(file)])
    assert f"damaged lines {blocks[0] + 1} are left out" in " ".join(capsys.readouterr().out.split())
