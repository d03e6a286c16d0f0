"""`benchmarks/seeds.py`: every table and figure of the three papers has a row, and the page is what the command writes."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import seeds
from gpu.sweeps import AllStairs, Figure, Stairs
from papers import Published, genet_rows, tail_effect_rows
from papers.beside import Row, compared, lacking
from papers.genet import latencies
from torch import nn

from genet.cli.parser import parser
from genet.latency.timing.curves import Curve, Curves
from genet.latency.trace import module_ops
from genet.models.cifar import VGG_WIDTHS, resnet56, vgg16

FIGURES = {"GENet": 5, "tail-effect paper": 11, "utilization paper": 6}
TABLES = {"GENet": 9, "tail-effect paper": 5, "utilization paper": 0}


@pytest.fixture(scope="module")
def committed() -> dict[str, list[list[str]]]:
    """The committed page: the cells of every row, by paper."""
    sections = re.split(r"^## \[(.*?)\].*$", (seeds.RESULTS / "seeds.md").read_text(), flags=re.MULTILINE)[1:]
    return {
        paper: [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")][1:]
        for paper, text in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_writes() -> None:
    """This takes some seconds: it records the kernels of a dozen networks, and runs nine searches on a table."""
    assert (seeds.RESULTS / "seeds.md").read_text() == seeds.page(), "python benchmarks/seeds.py makes it anew"


@pytest.mark.parametrize("paper", FIGURES)
def test_every_table_and_figure_has_a_row(committed: dict[str, list[list[str]]], paper: str) -> None:
    expected = {f"figure {number + 1}" for number in range(FIGURES[paper])}
    expected |= {f"table {number + 1}" for number in range(TABLES[paper])}
    places = {re.sub(r"(?<=\d)[a-z]$", "", row[0]) for row in committed[paper]}
    assert expected <= places
    assert paper != "utilization paper" or {"table of appendix A", "section 4.4", "section 4.5"} <= places


def test_every_network_of_the_latency_tables_has_a_row(committed: dict[str, list[list[str]]]) -> None:
    for number, batch in ((7, 64), (8, 32), (9, 32)):
        rows = {row[1]: row[2] for row in committed["GENet"] if row[0] == f"table {number}"}
        assert len(latencies(number)) == 26
        for network in latencies(number):
            assert rows[f"{network.model}, batch {batch}"] == f"{network.ms_per_image[batch]:g} ms/image"


def test_what_has_no_figure_of_ours_says_why_or_which_command_makes_it(committed: dict[str, list[list[str]]]) -> None:
    rows = [row for every in committed.values() for row in every]
    assert all(row[4].strip() for row in rows)
    assert [row for row in rows if row[3] == "none yet"]
    commands = {command for row in rows for command in re.findall(r"`(genet [^`\s]+ [^`]+)`", row[4])}
    for command in commands:
        parser().parse_args(shlex.split(command)[1:])
    for script in {script for row in rows for script in re.findall(r"`(?:python )?(benchmarks/\S+?)[` ]", row[4])}:
        assert (seeds.RESULTS.parents[1] / script).exists(), script


def test_a_difference_is_in_points_between_percentages_and_relative_otherwise() -> None:
    assert compared(Published("table 1", "a", 80.0, "%"), 78.5, "measured").difference == "-1.5 points"
    assert compared(Published("table 1", "a", 0.2, "ms/image"), 0.25, "measured").difference == "+25.0%"
    assert compared(Published("table 1", "a", 0.5, "Spearman"), 0.25, "measured").difference == "-0.25"
    assert compared(Published("figure 1", "a", None), 0.25, "measured").difference == ""
    row = lacking(Published("table 1", "a", 12.6, "ms"), "no such GPU")
    assert row == Row("table 1", "a", "12.6 ms", "none yet", "no such GPU", "")


def test_macs_of_pruned_networks_are_those_of_their_kernels() -> None:
    full = {"network": "resnet56", "places": [], "widths": {}}
    assert tail_effect_rows.macs_of(full, aligned=False) == sum(op.macs for op in module_ops(resnet56(), (3, 32, 32)))
    wide = [name for name, part in vgg16().named_modules() if isinstance(part, nn.Conv2d)]
    places = [{"name": name, "layers": [name], "now": {"width": width}} for name, width in zip(wide, VGG_WIDTHS, strict=True)]
    cut = {"network": "vgg16", "places": places, "widths": {"features.40": 448}}
    macs = sum(op.macs for op in module_ops(vgg16(), (3, 32, 32)))
    assert tail_effect_rows.macs_of(cut, aligned=False) == macs
    assert tail_effect_rows.macs_of(cut, aligned=True) == macs - 64 * (9 * 512 * 2**2 + 512)


def with_more_evidence(folder: Path) -> Path:
    """The committed results, and on their GPU the parts that it has not run yet, with made-up figures."""
    shutil.copytree(seeds.RESULTS, folder, ignore=shutil.ignore_patterns("run", "trials", "fidelity", "*.svg", "*.html"))
    evidence = folder / "nvidia-h200" / "evidence"
    batched = Curve(name="timm:resnet152", values=(1, 64), ms=(2.0, 16.0), parameters=(1, 1))
    facts = {"variable": "batch", "device": "NVIDIA H200", "estimate": False, "batch": None}
    Figure(figure="2a", curves=(Curves(curves=(batched,), **facts),)).save(evidence / "blocks" / "figure-2a.json")
    plain = Curve(name="XX k3 c64 d5 @224", values=(256,), ms=(10.0,), parameters=(1000,))
    half = Curve(name="BL k3 c64 d10 r0.5 @224", values=(256,), ms=(5.0,), parameters=(250,))
    Figure(figure="3", curves=(Curves(curves=(plain, half), **facts),)).save(evidence / "blocks" / "figure-3.json")
    stairs = Stairs(figure=10, layer="Conv k3 c8>8 @8", batch=4, pattern="stairs", widths=(8, 16), ms=(1.0, 2.0), edges=(8,))
    AllStairs(stairs=(stairs,)).save(evidence / "filters" / "stairs.json")
    return folder


def test_what_a_gpu_measures_later_takes_the_place_of_what_was_lacking(tmp_path: Path) -> None:
    results = with_more_evidence(tmp_path / "results")
    rows = [*genet_rows.figure_2(results), *genet_rows.figure_3(results), *tail_effect_rows.figures_9_to_11(results)]
    measured = {(row.where, row.what): row.ours for row in rows if row.how.startswith("measured, NVIDIA H200")}
    assert measured["figure 2a", "timm:resnet152: ms/image at batch 1 over batch 64"] == "8.00"
    assert "0.500 at r 0.5" in measured["figure 3b", "latency of 10 BL blocks over 5 XX blocks, width 256"]
    assert "0.500 at r 0.5" in measured["figure 3d", "parameters per millisecond of BL blocks over those of XX blocks"]
    assert measured["figure 10", "latency over filters, `Conv k3 c8>8 @8`"] == "stairs, 1 edges at batch 4"
    assert not [row for row in rows if row.ours == "none yet" and row.where != "figure 11"]
