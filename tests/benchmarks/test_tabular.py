"""`benchmarks/tabular.py`: it reads tables and answers trials, and leaves thinking to the search."""

from __future__ import annotations

import ast
import gzip
from pathlib import Path

import numpy as np
import pytest
import tabular

MACRO = "choices,top1_seed0,top1_seed1,top1_seed2,params,macs\n"
MACRO += "00000001,64,65,66,10,100\n2,65,66,67,12,120\n00012010,90,91,92,30,300\n"
MOBILE = "blocks,top1_percent,params,macs,a100_images_per_s,rtx3090_images_per_s\n"
MOBILE += "".join(
    f"{'e1k3l1se0 ' * 6}e{e}k5l{layers}se1,{60 + e},{3 + e},{200 + e},{20000 / e},1\n" for e in (1, 6) for layers in (1, 3)
)


def table(tmp_path: Path, text: str) -> tabular.Table:
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    return tabular.read_table(file)


def test_either_table_is_read_with_its_costs_and_accuracies(tmp_path: Path) -> None:
    macro = table(tmp_path, MACRO)
    assert macro.truth == pytest.approx([0.65, 0.66, 0.91])
    assert list(macro.costs) == [100, 120, 300]
    mobile = table(tmp_path, MOBILE)
    assert mobile.truth == pytest.approx([0.61, 0.61, 0.66, 0.66])
    assert mobile.costs == pytest.approx([0.05, 0.05, 0.3, 0.3])
    with pytest.raises(ValueError, match="expected choices or blocks"):
        table(tmp_path, "a,params,macs\n1,2,3\n")


def test_a_trial_has_the_noise_that_was_asked_for_and_one_trained_longer_a_share_of_it(tmp_path: Path) -> None:
    macro = table(tmp_path, MACRO)
    asked = tabular.Question(macro, 1000, 32, 0.02, np.random.default_rng(0))
    rows = np.zeros(4000, int)
    seeds = np.std([0.64, 0.65, 0.66])
    assert asked.train(rows).std() == pytest.approx(np.hypot(0.02, seeds), rel=0.1)
    assert asked.train(rows, 0.5).std() == pytest.approx(np.hypot(0.01, seeds), rel=0.1)


def test_the_benchmark_neither_fits_nor_designs_nor_races_by_itself() -> None:
    tree = ast.parse(Path(tabular.__file__).read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"solve", "lstsq", "inv", "cholesky", "eigh", "minimize", "fit"}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {"search", "race", "single_changes", "fit_surrogate"} <= imported
    assert not {"sklearn", "scipy"} & {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
