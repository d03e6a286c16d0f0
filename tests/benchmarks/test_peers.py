"""`benchmarks/peers.py`: a tool's knob is turned until the latency fits, what it cannot do is told, and so is who wins."""

from __future__ import annotations

import time
from pathlib import Path

import cutting
import pytest
from cutting import MASTERNET, Answer, Question, Row
from peers import Entry, Timed, points, seconds_per_epoch, study_of, table, told_of_knob
from pruning import Bench

from genet.arch.external import ExternalModel, read_notation
from genet.arch.network import Input
from genet.config.options import checked_measure
from genet.config.reader import read_structure, to_yaml
from genet.config.recipe import Data
from genet.latency.timing.meter import meter_of
from genet.models.external import build_structure
from genet.models.weights import NETWORK_FILE, WEIGHTS_FILE, save_weights
from genet.storage import Journal, write_atomic
from genet.training.splits import load_data

SLOW = {"device": "estimate:jetson-nano", "runtime": "cudagraph", "batch": 256}  # a GPU on which widths count, not its host


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The MasterNet of digits with fresh weights, timed by an estimate, so that nothing is noisy."""
    folder = tmp_path_factory.mktemp("masternet")
    reads = Input(channels=1, classes=10, resolution=24)
    structure = ExternalModel(name="masternet", source="benchmarks.masternets:digits", input=reads)
    save_weights(build_structure(structure), folder / WEIGHTS_FILE)
    write_atomic(folder / NETWORK_FILE, to_yaml(structure).encode())
    meter = meter_of(checked_measure(SLOW))
    return Bench(folder, Data(name="digits"), meter)


def question(bench: Bench, folder: Path) -> Question:
    held_out = load_data(bench.data, bench.subject.network.input, 0).nas_validation
    return Question(bench, held_out, 0.8, folder)


@pytest.mark.slow
def test_a_knob_is_turned_until_the_latency_fits(bench: Bench, tmp_path: Path) -> None:
    asked = question(bench, tmp_path)
    answer = cutting.turned(asked, bench.uniform, 0.1, "torch_pruning")
    assert answer is not None
    assert answer.first.mean > asked.target >= answer.turned.mean > asked.target - 0.1
    assert answer.alone
    cut = read_structure(asked.cut / NETWORK_FILE)
    assert read_notation(str(cut), "pruned") == cut, "its notation is enough to train it anew"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the tools' own
@pytest.mark.parametrize(("tool", "peer"), [("torch_pruning", cutting.torch_pruning), ("modelopt", cutting.fastnas)])
def test_a_tool_arrives_at_the_latency(tool: str, peer: cutting.Peer, bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip(tool)
    answer = peer(question(bench, tmp_path))
    assert answer is not None
    assert answer.turned.mean <= 0.8
    assert answer.alone


def refusing(fault: Exception) -> cutting.Peer:
    def peer(asked: Question) -> Answer | None:
        raise fault

    return peer


@pytest.mark.parametrize(
    ("peer", "why", "kept"),
    [
        (refusing(ImportError("No module named 'modelopt'")), "not installed here (No module named 'modelopt')", False),
        (refusing(RuntimeError("no such layer\nmore")), "failed (no such layer)", False),
        (lambda asked: None, "out of reach", True),
    ],
)
def test_what_a_tool_cannot_do_is_its_row_and_only_a_finding_is_kept(
    peer: cutting.Peer, why: str, kept: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "PEERS", {"FastNAS": peer})
    journal, recipe = Journal(tmp_path / "cut.jsonl"), study_of("digits", None, tmp_path).recipe
    (row,) = cutting.cut_by_all(bench, recipe, tmp_path, journal)
    assert (row.peer, row.budget, row.network, row.why) == ("FastNAS", "0.8x", None, why)
    assert [Row.model_validate(each) for each in journal.read().records] == [row] * kept


def test_the_minutes_of_a_peer_that_was_stopped_count_once_it_has_gone_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter((KeyboardInterrupt, None))

    def peer(asked: Question) -> Answer | None:
        time.sleep(0.2)
        if end := next(ends):
            raise end
        return None

    monkeypatch.setattr(cutting, "PEERS", {"FastNAS": peer})
    asked = bench, study_of("digits", None, tmp_path).recipe, tmp_path, Journal(tmp_path / "cut.jsonl")
    with pytest.raises(KeyboardInterrupt):
        cutting.cut_by_all(*asked)
    (row,) = cutting.cut_by_all(*asked)
    assert row.minutes >= 2 * 0.2 / 60


def test_a_failure_has_no_part_in_the_pace_of_a_race() -> None:
    assert seconds_per_epoch([{"seconds": 10.0, "epochs": 2}, {"seconds": 0.0, "epochs": 8}]) == 5


def test_how_far_a_knob_is_off_is_told_as_a_share_of_the_budget() -> None:
    assert told_of_knob(1.12) == "broken by 12%"
    assert told_of_knob(0.9) == "kept, 10% below"


@pytest.mark.parametrize(("lead", "told"), [(0.02, "**FastNAS** wins, by 2.00 ± 0.00 points"), (-0.02, "nobody is surely ahead")])
def test_the_table_says_who_wins_and_what_is_missing(lead: float, told: str, tmp_path: Path) -> None:
    def entry(budget: str, peer: str, network: str | None, knob: str = "certified") -> Entry:
        return Entry(budget, peer, network, knob, 1.0, 2.0, "2 commands", "yes")

    entries = [
        entry("", MASTERNET, "m"),
        entry("0.6x", "genet run", "g"),
        entry("0.6x", "FastNAS", "f", "broken by 12%"),
        entry("0.6x", "Torch-Pruning", None, "out of reach"),
    ]
    anew = {(network, seed): share for network, share in (("m", 0.7), ("g", 0.8), ("f", 0.8 + lead)) for seed in range(3)}
    timed = {each: Timed(network=each, setting="s", ms_per_image=0.1, share=0.6, error=0.01) for each in "mgf"}
    text = table(study_of("digits", None, tmp_path), entries, timed, anew, {("f", seed): 0.9 for seed in range(3)})
    assert f"- 0.6x: {told}" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| 0.6x")]
    assert rows[1][2:5] == [points([100 * (0.8 + lead)] * 3), "90.00 ± 0.00", f"{100 * lead:+.2f} ± 0.00"]
    assert "out of reach" in rows[2]
