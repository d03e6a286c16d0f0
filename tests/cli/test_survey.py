"""`genet survey` as a user meets it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from genet.arch.network import Network
from genet.cli import main as cli
from genet.cli import survey_journal
from genet.cli.survey_journal import SurveyJournal
from genet.config.reader import to_yaml
from genet.latency.workload import read_workload
from genet.storage import Journal
from genet.studies.survey.survey import PRESETS
from tests.fixtures.commands import answer, fault
from tests.fixtures.simulated import Simulated

V100 = ("--device", "estimate:v100", "--dtype", "fp16")
SMALL = "@32x3 | Conv k3 c16 s1 | XX k3 c32 s2 d1 | Conv k1 c64 | 10"
HERE = ("--device", "cpu", "--batch", "4")
TABLE = (
    "model,top1_percent,images_per_sec,tflops_per_sec,remark\n"
    "small,70.5,4000,10,quick\n"
    "large,80.5,1000,30,\n"
    "odd,60,500,5,beaten in all\n"
    "sparse,75,3000,12,\n"
)
PAPER = Path(__file__).parents[3] / "shared" / "papers" / "utilization_survey_v100_tensorrt_fp16.csv"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `runs/survey` is written."""
    monkeypatch.chdir(tmp_path)


def test_a_table_from_elsewhere_gives_its_frontiers_and_utilization_once_a_peak_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("table.csv").write_text(TABLE)
    found = answer(capsys, "survey", "--from", "table.csv", "--peak", "100")
    assert found["frontiers"] == {
        "throughput_accuracy": ["small", "large", "sparse"],
        "utilization_accuracy": ["large"],
        "throughput_utilization": ["small", "large", "sparse"],
        "on_all": ["large"],
    }
    assert [row["utilization"] for row in found["networks"]] == [0.1, 0.3, 0.05, 0.12]
    without = answer(capsys, "survey", "--from", "table.csv")
    assert without["frontiers"] == found["frontiers"]
    assert without["networks"][0]["utilization"] is None


@pytest.mark.skipif(not PAPER.exists(), reason="the utilization paper's table is not here")
def test_the_papers_table_has_one_network_on_all_three_frontiers(capsys: pytest.CaptureFixture[str]) -> None:
    """Section 3.2 of the paper; and no network on a frontier is beaten, none beside it unbeaten."""
    found = answer(capsys, "survey", "--from", str(PAPER), "--peak", "100")
    assert found["frontiers"]["on_all"] == ["tresnet_m"]
    rows = {row["model"]: row for row in found["networks"]}
    metrics = {"throughput": "images_per_sec", "utilization": "tflops_per_sec", "accuracy": "top1_percent"}
    for name, members in found["frontiers"].items():
        if name != "on_all":
            x, y = (metrics[each] for each in name.split("_"))
            points = {model: (row[x], row[y]) for model, row in rows.items()}
            unbeaten = {
                model
                for model, (a, b) in points.items()
                if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in points.values())
            }
            assert set(members) == unbeaten, name


def test_an_estimate_is_labelled_and_tells_utilization_intensity_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    Path("results.csv").write_text(
        "model,img_size,top1\nresnet18.a1_in1k,224,71.491\nresnet18.a1_in1k,288,73.159\ngernet_s,256,76\n"
    )
    found = answer(capsys, "survey", "timm:resnet18", "timm:gernet_s", *V100, "--accuracy", "results.csv")
    assert found["estimate"] is True
    resnet, gernet = found["networks"]
    assert resnet["top1_percent"] == 71.491  # of the resolution that was surveyed
    assert gernet["top1_percent"] is None  # known at another resolution alone
    assert resnet["intensity"] > gernet["intensity"]
    assert resnet["utilization"] == pytest.approx(resnet["tflops_per_sec"] / resnet["peak_tflops_per_sec"])
    assert resnet["tflops_per_sec"] == pytest.approx(2 * resnet["macs"] * resnet["images_per_sec"] / 1e12)
    assert 0 < gernet["bound_share"] < 1
    assert cli.main(["survey", "timm:resnet18", *V100]) == 0
    assert "estimates, not measurements" in capsys.readouterr().out


def test_a_network_that_was_surveyed_is_not_measured_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_journal, "DOUBTFUL", math.inf)  # however this machine is disturbed
    first = answer(capsys, "survey", SMALL, *HERE)
    kept = Path("runs/survey/survey.jsonl").read_bytes()
    assert answer(capsys, "survey", SMALL, *HERE)["networks"] == first["networks"]
    assert Path("runs/survey/survey.jsonl").read_bytes() == kept


@pytest.mark.slow
def test_a_survey_of_this_machine_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    first = answer(capsys, "survey", SMALL, *HERE)
    kept = Path("runs/survey/survey.jsonl").read_bytes()
    both = answer(capsys, "survey", SMALL, "timm:test_byobnet", "--size", "32", *HERE)
    assert Path("runs/survey/survey.jsonl").read_bytes().startswith(kept)
    assert both["networks"][0] == first["networks"][0]
    assert answer(capsys, "survey", SMALL, "timm:test_byobnet", "--size", "32", *HERE)["networks"] == both["networks"]
    assert all(0 < row["utilization"] < 1.1 and row["largest_batch"] >= 4 for row in both["networks"])
    assert both["estimate"] is False


@pytest.mark.slow
def test_all_rows_of_a_journal_stand_under_one_roof_and_a_doubtful_one_is_measured_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(capsys, "survey", SMALL, *HERE)
    journal = Journal(Path("runs/survey/survey.jsonl"))
    roof, row = journal.read().records
    doubtful = {**row, "row": {**row["row"], "images_per_sec": 1.0, "utilization_error": 0.3}}
    journal.append(doubtful)
    assert cli.main(["survey", SMALL, *HERE]) == 0
    said = capsys.readouterr().out
    assert "are read from" not in said
    assert f"{roof['roof']['tflops_per_sec']:.4g} TFLOP/s" in said
    assert journal.read().records[-1]["row"]["images_per_sec"] > 1
    assert sum("roof" in record for record in journal.read().records) == 1
    assert cli.main(["survey", SMALL, *HERE]) == 0
    assert (
        "1 of 1 are read from runs/survey/survey.jsonl; give another --evidence to measure them again" in capsys.readouterr().out
    )


def test_a_table_of_accuracies_that_is_of_none_of_the_networks_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("results.csv").write_text("model,img_size,top1\nresnet18.a1_in1k,224,71.491\n")
    assert cli.main(["survey", "timm:resnet18", "--size", "64", *V100, "--accuracy", "results.csv"]) == 0
    assert "results.csv: no row is for these networks at these resolutions" in capsys.readouterr().out
    Path("results.csv").write_text("model,top1_percent\nresnet18,71.5\n")
    for size, known in ((("--size", "64"), None), ((), 71.5)):
        found = answer(capsys, "survey", "timm:resnet18", *size, *V100, "--accuracy", "results.csv")
        assert found["networks"][0]["top1_percent"] == known


def test_of_two_surveys_begun_side_by_side_the_first_ones_roof_counts_for_both() -> None:
    first, second = (SurveyJournal(Path("survey.jsonl"), Simulated(lambda _, ms=ms: ms), "2") for ms in (1.0, 2.0))
    roof = first.roof()
    first.keep("a network", None, "it does not fit")
    assert second.roof() == roof
    assert second.row("a network") is not None
    assert SurveyJournal(Path("survey.jsonl"), Simulated(lambda _: 1.0), "2").roof() == roof


@pytest.mark.slow
def test_a_file_that_came_to_hold_another_network_is_surveyed_anew(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "network.yaml").write_text(to_yaml(Network.parse(SMALL)))
    Path("b/network.yaml").write_text(to_yaml(Network.parse(SMALL.replace("c32", "c48"))))
    both = answer(capsys, "survey", "a/network.yaml", "b/network.yaml", *HERE)
    assert [row["model"] for row in both["networks"]] == ["a/network.yaml", "b/network.yaml"]
    assert both["networks"][0]["macs"] < both["networks"][1]["macs"]
    Path("a/network.yaml").write_text(to_yaml(Network.parse(SMALL.replace("c32", "c64"))))
    again = answer(capsys, "survey", "a/network.yaml", "b/network.yaml", *HERE)
    assert again["networks"][0]["macs"] > both["networks"][1]["macs"]
    assert again["networks"][1] == both["networks"][1]


def test_all_networks_of_the_papers_survey_are_timms() -> None:
    import timm

    names = [name.removeprefix("timm:") for name in PRESETS["paper"]]
    assert len(names) == len(set(names)) == 86
    assert all(timm.is_model(name) and timm.models.get_pretrained_cfg(name) for name in names)


@pytest.mark.slow
@pytest.mark.skipif(not PAPER.exists(), reason="the paper's survey is not here")
@pytest.mark.parametrize("name", [name for name, size in PRESETS["paper"].items() if size])
def test_networks_at_resolutions_of_their_own_have_the_papers_flops(name: str) -> None:
    rows = {row["model"]: row for row in csv.DictReader(PAPER.open())}
    row = rows[name.removeprefix("timm:")]
    flops = float(row["tflops_per_sec"]) / float(row["images_per_sec"]) * 1e12
    assert 2 * sum(op.macs for op in read_workload(name, PRESETS["paper"][name]).ops()) == pytest.approx(flops, rel=0.01)


def test_estimates_stay_estimates_in_a_table_and_are_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "survey", "timm:resnet18", *V100, "--csv", "survey.csv")
    assert not Path("runs").exists()
    assert answer(capsys, "survey", "--from", "survey.csv")["estimate"] is True
    assert cli.main(["survey", "--from", "survey.csv"]) == 0
    assert "survey.csv: estimates, not measurements" in capsys.readouterr().out


def test_rows_alike_in_all_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text(f"{TABLE}small,70.5,4000,10,again\n")
    assert len(answer(capsys, "survey", "--from", "table.csv")["networks"]) == 4


def test_a_network_that_fails_does_not_stop_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "survey", "timm:vit_tiny_patch16_224", "timm:resnet18", *V100)
    assert [row["model"] for row in found["networks"]] == ["resnet18"]
    assert "got products of activations" in found["failed"]["timm:vit_tiny_patch16_224"]
    assert "got products of activations" in fault(capsys, "survey", "timm:vit_tiny_patch16_224", *V100)


def test_the_table_written_is_read_again_with_the_same_frontiers(capsys: pytest.CaptureFixture[str]) -> None:
    Path("accuracy.csv").write_text("model,top1_percent\nresnet18,71.5\ngernet_s,76.9\nregnetx_002,68.8\n")
    names = ("timm:resnet18", "timm:gernet_s", "timm:regnetx_002")
    found = answer(capsys, "survey", *names, *V100, "--accuracy", "accuracy.csv", "--csv", "survey.csv")
    again = answer(capsys, "survey", "--from", "survey.csv")
    assert (again["networks"], again["frontiers"]) == (found["networks"], found["frontiers"])


def test_pictures_tell_every_network_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    Path("table.csv").write_text(TABLE.replace("odd", "odd & <new>"))
    answer(capsys, "survey", "--from", "table.csv", "--page", "page.html", "--plot", "clouds.svg")
    for text in (Path("page.html").read_text(), Path("clouds.svg").read_text()):
        assert "<title>large: 1000 images per second, 80.5 top-1 accuracy (%)</title>" in text
        assert "odd &amp; &lt;new&gt;: 500 images per second" in text
    assert "http" not in Path("page.html").read_text().replace("http://www.w3.org", "").replace("http-equiv", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://purl.org", "").replace("http://creativecommons.org", "")


def test_the_layers_of_one_network_are_drawn_under_the_roof(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["survey", "timm:resnet18", *V100, "--roofline", "roof.svg"]) == 0
    told = capsys.readouterr().out
    assert "layer4.1.conv2" in told
    assert "arithmetic" in told
    drawn = Path("roof.svg").read_text()
    assert drawn.count("FLOP/byte,") == 21  # convolutions and the classifier
    assert "<title>layer4.1.conv2: " in drawn


def test_a_pattern_stands_for_all_of_timms_models_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "survey", "timm:regnetx_00[24]", "timm:regnetx_002", *V100)
    assert [row["model"] for row in found["networks"]] == ["regnetx_002", "regnetx_004"]


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        ((), "genet survey: got neither of networks (or --preset paper) and --from CSV"),
        (("timm:resnet18", "--from", "table.csv"), "expected one of them"),
        (("timm:resnet18", "--peak", "100"), "--peak: got 100, expected TFLOP/s above 0 together with --from"),
        (("timm:resnet18", "timm:gernet_s", "--roofline", "x.svg"), "--roofline: got 2 networks, expected one"),
        (("timm:resnet51", "timm:gernet_x", *V100), "nearest: resnet5"),
        (("timm:nothing*", *V100), "timm:nothing* matches no timm model"),
        (("--from", "nowhere.csv"), "nowhere.csv: cannot be read"),
        (("--from", "columns.csv"), "columns.csv:1: must have the columns model, images_per_sec, tflops_per_sec"),
        (("--from", "faults.csv"), "faults.csv:3: images_per_sec: must be greater than 0 (got -4)\nfaults.csv:4: top1_percent"),
        (("--from", "twice.csv"), "twice.csv:3: model: must appear once (got a with other figures above)"),
        (
            ("--from", "commas.csv"),
            "commas.csv:2: got 5 cells, expected one for each of the 4 columns",
        ),
        (
            ("--from", "table.csv", "--size", "32", "--accuracy", "x"),
            "--from: got --accuracy, --size too, expected it without options for measuring here",
        ),
        (
            ("timm:resnet18", "--largest-batch", *V100),
            "--largest-batch: got --device estimate:v100, expected a device of this machine",
        ),
        ((SMALL, *HERE, "--evidence", "other.jsonl"), "other.jsonl: got another kind of file, expected the journal of a survey"),
        (("--from", "empty.csv"), "empty.csv:1: must have a row below the header"),
    ],
)
def test_what_cannot_be_is_refused_with_every_fault(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], law: str
) -> None:
    head = "model,top1_percent,images_per_sec,tflops_per_sec\n"
    Path("columns.csv").write_text("model,top1_percent,throughput\na,1,2\n")
    Path("faults.csv").write_text(f"{head}a,70,1,1\nb,70,-4,1\nc,seventy,1,1\n")
    Path("twice.csv").write_text(f"{head}a,70,1,1\na,71,1,1\n")
    Path("empty.csv").write_text(head)
    Path("commas.csv").write_text(f"{head}a,70,8,444,1\n")
    Journal(Path("other.jsonl")).append({"network": "a"})
    assert law.lower() in fault(capsys, "survey", *arguments).lower()


def test_all_unknown_names_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = fault(capsys, "survey", "timm:resnet51", "timm:gernet_x", *V100)
    assert len(said.splitlines()) == 2
