"""`genet rank` and `genet filter` as a user meets them."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from genet.arch.network import Network
from genet.cli import main as cli
from genet.config.reader import to_yaml
from genet.models.build import build
from genet.models.weights import save_weights
from genet.pipeline.run_folder import RunFolder
from tests.fixtures.commands import answer, fault

OURS = Network.parse("@16x3 | Conv k3 c16 s1 | XX k3 c32 s2 d2 | DW k3 c48 s2 d2 r3 | Conv k1 c64 | 10")


VERDICT = ("filter by utilization", "REINFORCE", "evolution", "random")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are written."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained() -> Path:
    """A network's folder with weights."""
    Path("net").mkdir()
    Path("net/network.yaml").write_text(to_yaml(OURS))
    save_weights(build(OURS), Path("net/model.safetensors"))
    Path("net/recipe.yaml").write_text("name: as a training leaves it\n")
    return Path("net")


def space_file(drop: int = 0) -> Path:
    """A table of nine networks."""
    lines = ["network,top1_percent,images_per_sec,macs,train_sec"]
    for one, other in itertools.product((8, 16, 32), repeat=2):
        lines.append(f"{one}:{other},{60 + one / 2 + other / 3},{1000 / (one + other)},{one * other},{5 + one}")
    Path("space.csv").write_text("\n".join(lines[: len(lines) - drop]) + "\n")
    return Path("space.csv")


def test_a_trained_networks_ranks_are_told_and_drawn(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "rank", str(trained), "--plot", "ranks.svg")
    assert [one["shape"] for one in found["stages"]] == [[32, 288], [48, 144]]
    assert found["own"] == ["XX", "DW"]
    assert Path("ranks.svg").read_text().startswith("<svg")


def test_noise_has_no_rank_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected some, as the rank of random weights means nothing" in fault(capsys, "rank", str(OURS))
    found = answer(capsys, "rank", str(OURS), "--random")
    assert all(one["share"] > 0.5 for one in found["stages"])
    assert (found["random"], {one["advice"] for one in found["stages"]}) == (True, {None})


def test_a_super_block_of_depth_0_has_no_rank(capsys: pytest.CaptureFixture[str]) -> None:
    network = Network.parse("@16x3 | Conv k3 c8 s2 | DW k3 c16 s1 d0 r2 | XX k3 c16 s1 d2 | BL k5 c32 s2 d2 r0.25 | 10")
    Path("network.yaml").write_text(to_yaml(network))
    found = answer(capsys, "rank", "network.yaml", "--random")
    assert found["own"] == ["XX", "BL"]
    assert [one["layer"] for one in found["stages"]] == ["stages.0.1.conv2_kxk.conv", "stages.1.1.conv3_1x1.conv"]


def test_of_a_run_the_masternets_ranks_are_held_against_what_the_search_chose(
    finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    found = answer(capsys, "rank", str(run))
    assert found["chosen"]
    assert all(len(types) == len(found["stages"]) for types in found["chosen"])
    assert cli.main(["rank", str(run)]) == 0
    assert "the search chose the advised type in" in capsys.readouterr().out
    RunFolder(run).selection.unlink()
    assert answer(capsys, "rank", str(run)) == {**found, "chosen": []}
    RunFolder(run).master.unlink()
    assert "`genet master RUN`" in fault(capsys, "rank", str(run))


def test_filtering_is_held_against_searches_on_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "filter", str(space_file()), "--seeds", "3", "--plot", "filter.svg")
    assert found["networks"] == 9
    assert {method["method"] for method in found["methods"]} == {
        "filter by utilization",
        "filter by FLOPs",
        "REINFORCE",
        "evolution",
        "random",
    }
    assert Path("filter.svg").read_text().startswith("<svg")
    assert cli.main(["filter", "space.csv"]) == 0
    told = capsys.readouterr().out
    ours, *rivals = ([run["hypervolume"] for run in found["runs"] if run["method"] == name] for name in VERDICT)
    ahead = [sum(ours) / 3 - sum(rival) / 3 for rival in rivals]
    (last,) = [line for line in told.splitlines() if line.startswith("filtering by utilization")]
    if min(ahead) > 0.2:
        assert "is better than" in last
    assert any(name in last for name in VERDICT[1:])
    assert answer(capsys, "filter", "space.csv", "--seeds", "3") == found


@pytest.mark.parametrize(
    ("arguments", "law"),
    [
        (("filter",), "got neither of a CSV table of a space and --nats FILE"),
        (
            ("filter", "space.csv", "--budget", "0", "--weight", "-1"),
            "--budget: got 0, expected a number above 0\n--weight: got -1, expected 0 or",
        ),
        (("filter", "hole.csv"), "a space needs every combination of its widths, 3 x 3 = 9 networks, got 8"),
        (("filter", "space.csv", "--budget", "1"), "--budget must suffice to train the cheapest network, 13 s (got 1)"),
        (("filter", "--nats", "nowhere.pbz2"), "nowhere.pbz2 does not exist, expected NATS-Bench's size space; get NATS-sss"),
        (("filter", "names.csv"), "names.csv:2: network: must be widths joined by colons, such as 8:16:64 (got 8x8)"),
        (("rank", "timm:resnet51"), "is not the name of a timm model"),
    ],
)
def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], law: str) -> None:
    space_file(drop=1).rename("hole.csv")
    space_file()
    Path("names.csv").write_text("network,top1_percent,images_per_sec,macs,train_sec\n8x8,1,1,1,1\n")
    assert law in fault(capsys, *arguments)
