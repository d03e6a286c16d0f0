"""The procedure: bounds that hold for the whole network, tolerances that widen, and growth at the same latency."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from genet.arch.external import ExternalModel
from genet.arch.network import Input, Network, blocks
from genet.config.options import checked_measure
from genet.errors import EvidenceError
from genet.latency.table import BlockRow, LatencyTable, Setting
from genet.latency.timing.meter import InterleavedTimer, Meter, meter_of
from genet.latency.timing.stopwatch import Timing
from genet.latency.workload import Workload
from genet.models.external import build_structure
from genet.progress import UNSEEN, Tracker, WorkItem
from genet.storage import Journal
from genet.studies.align.module_subject import ModuleSubject, ResizableNetwork
from genet.studies.align.place import Place
from genet.studies.align.scale import scale, widths_at
from genet.studies.align.study import Goal, Ratio, choose_widths, find_places
from genet.studies.align.subject import NetworkSubject, grid
from tests.fixtures.simulated import Simulated

OURS = "@32x3 | Conv k3 c24 s1 | XX k3 c72 s2 d2 | BL k3 c200 s2 d2 r0.4 | DW k3 c96 s1 d1 r3 | Conv k1 c320 | 10"


def foreign(source: str, size: int = 32, classes: int = 10, **cut: int) -> ModuleSubject:
    network = ExternalModel(name="own", source=source, input=Input(channels=3, classes=classes, resolution=size))
    return ModuleSubject(network, build_structure(network), cut)


def meter_at(batch: int, runtime: str = "cudagraph") -> Meter:
    return meter_of(checked_measure({"device": "estimate:v100", "dtype": "fp16", "batch": batch, "runtime": runtime}))


def places_of(subject: ResizableNetwork, meter: Meter, folder: Path) -> tuple[Place, ...]:
    return find_places(subject, LatencyTable(Journal(folder / "latency.jsonl"), meter.setting), meter)


SUBJECTS: dict[str, Any] = {
    "ours": NetworkSubject(Network.parse(OURS)),
    "dense": foreign("genet.models.cifar:vgg16"),
    "pruned": foreign("genet.models.cifar:vgg16", **{"features.0": 35, "features.7": 70, "features.14": 140}),
    "resnet18": foreign("timm:resnet18", 64, 1000),
}


@functools.cache
def known_places(name: str, batch: int) -> tuple[Place, ...]:
    """Found once for all tests: they take most of the time."""
    with tempfile.TemporaryDirectory() as folder:
        return places_of(SUBJECTS[name], meter_at(batch), Path(folder))


@pytest.mark.parametrize("name", ["ours", "dense", "pruned"])
@pytest.mark.parametrize("solver", ["greedy", "exact"])
def test_the_parameters_of_the_whole_network_stay_within_the_tolerance(name: str, solver: Any) -> None:
    subject = SUBJECTS[name]
    found = choose_widths(subject, known_places(name, 1024), meter_at(1024), Goal("latency", None, 0.03, solver))
    assert found.reached
    assert found.widths
    assert found.measured.mean < 1
    assert abs(found.parameter_gain) <= 0.03
    assert found.parameters[1] == sum(p.numel() for p in subject.workload(found.widths).build().parameters())


@pytest.mark.parametrize("solver", ["greedy", "exact"])
def test_for_accuracy_parameters_are_gained_and_the_whole_network_takes_no_longer(solver: Any) -> None:
    found = choose_widths(SUBJECTS["pruned"], known_places("pruned", 1024), meter_at(1024), Goal("accuracy", solver=solver))
    assert found.reached
    assert found.parameter_gain > 0
    assert found.measured.mean <= 1


def test_the_tolerance_is_doubled_until_the_latency_asked_for_is_there() -> None:
    heard: list[tuple[float, float]] = []
    places, goal = known_places("pruned", 1024), Goal("latency", 0.8, 0.002)
    found = choose_widths(SUBJECTS["pruned"], places, meter_at(1024), goal, lambda *said: heard.append((said[0], said[1].mean)))
    assert found.reached
    tolerances = [tolerance for tolerance, _ in heard]
    assert set(tolerances) < {0.002 * 2**k for k in range(8)}
    assert tolerances == sorted(tolerances)
    assert len(heard) > 1
    assert all(ratio > 0.8 for _, ratio in heard[:-1])
    assert found.measured.mean <= 0.8
    assert abs(found.parameter_gain) <= found.tolerance


def test_a_latency_that_no_choice_reaches_ends_with_the_best_that_was_found() -> None:
    heard: list[float] = []
    places, goal = known_places("pruned", 1024), Goal("latency", 0.05, 0.02)
    found = choose_widths(SUBJECTS["pruned"], places, meter_at(1024), goal, lambda _, ratio: heard.append(ratio.mean))
    assert not found.reached
    assert found.measured.mean == min(heard)


@pytest.mark.parametrize(
    "tolerance", [pytest.param(0.001, marks=pytest.mark.slow), 0.01, pytest.param(0.05, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_exact_choice_for_a_whole_network_is_never_worse_than_the_greedy_one(name: str, tolerance: float) -> None:
    subject, places, meter = SUBJECTS[name], known_places(name, 512), meter_at(512)
    one, other = (
        choose_widths(subject, places, meter, Goal("latency", None, tolerance, solver)) for solver in ("exact", "greedy")
    )
    assert one.predicted <= other.predicted
    assert other.optimum == pytest.approx(one.predicted) or not other.widths
    for found in (one, other):
        assert abs(found.parameter_gain) <= tolerance * (1 + 1e-9)


class Slower:
    """The estimates, and whatever differs from the network as it is takes so much longer, round by round."""

    def __init__(self, subject: ResizableNetwork, meter: Meter, times: tuple[float, ...]) -> None:
        self.meter, self.before, self.times = meter, subject.workload({}).build(), list(times)

    @property
    def setting(self) -> Setting:
        """Measured: rounds are asked for until the ratio is known."""
        card = self.meter.setting.device.model_copy(update={"kind": "cpu"})
        return self.meter.setting.model_copy(update={"device": card})

    def prepare(self, parts: Sequence[Workload]) -> InterleavedTimer:
        """Of two, the first is slower."""
        race = self.meter.prepare(parts)
        if len(parts) == 1:
            return race
        factor = self.times.pop(0)
        self.times.append(factor)

        def slower(repeats: int = 30, tracker: Tracker = UNSEEN) -> tuple[Timing, ...]:
            first, second = race(repeats)
            return first.model_copy(update={"ms": factor * second.ms}), second

        return slower


@pytest.mark.parametrize("mode", ["latency", "accuracy"])
@pytest.mark.parametrize("times", [(1.5,), (0.95, 1.05, 1.25), (0.9, 1.1)], ids=["slower", "noisy", "as fast but noisy"])
def test_what_is_not_sure_to_be_as_fast_is_not_reached(mode: Any, times: tuple[float, ...]) -> None:
    subject, places, meter = SUBJECTS["pruned"], known_places("pruned", 1024), meter_at(1024)
    found = choose_widths(subject, places, Slower(subject, meter, times), Goal(mode))
    assert not found.reached
    assert found.widths == {} or mode == "latency"


def test_what_is_sure_to_be_faster_is_reached_also_by_a_noisy_clock() -> None:
    subject, places, meter = SUBJECTS["pruned"], known_places("pruned", 1024), meter_at(1024)
    found = choose_widths(subject, places, Slower(subject, meter, (0.88, 0.9, 0.93)), Goal("latency", 0.95))
    assert found.reached
    assert len(found.measured.rounds) > 3
    assert found.measured.above <= 0.95


def test_rounds_are_added_until_a_difference_that_matters_is_told_from_noise() -> None:
    subject, places, meter = SUBJECTS["pruned"], known_places("pruned", 1024), meter_at(1024)
    found = choose_widths(subject, places, Slower(subject, meter, (0.996, 1.0, 1.004)), Goal("accuracy"))
    assert found.reached  # three such rounds are not sure to be within half a percent, more of them are
    assert found.widths
    assert 3 < len(found.measured.rounds) < 12


def test_a_width_that_cannot_be_measured_now_is_named_with_the_reason(tmp_path: Path) -> None:
    subject, meter = SUBJECTS["ours"], meter_at(64)
    rows = LatencyTable(Journal(tmp_path / "latency.jsonl"), meter.setting)
    for block in subject.movable[1].blocks(subject.movable[1].width):
        rows.add_block(BlockRow(block=block, ops=1, failure="no memory"))
    with pytest.raises(EvidenceError, match=r"measuring .* at its width \d+ failed: no memory"):
        find_places(subject, rows, meter)


def test_a_network_without_a_head_moves_by_its_stem_and_super_blocks_alone() -> None:
    subject = NetworkSubject(Network.parse(OURS.replace(" | Conv k1 c320", "")))
    assert [movable.name for movable in subject.movable] == ["stem", "stages.0", "stages.1", "stages.2"]
    moved = subject.at({"stages.2": 64})
    assert [block.kind for block in subject.movable[-1].blocks(64)] == ["DW", "Classifier"]
    assert subject.movable[-1].blocks(64)[-1] == list(blocks(moved))[-1]


def test_a_super_block_of_depth_0_stays_as_it_is() -> None:
    subject = NetworkSubject(Network.parse(OURS.replace("XX k3 c72 s2 d2", "XX k3 c72 s1 d0 | XX k3 c72 s2 d2 | XX k3 c8 s1 d0")))
    assert [movable.name for movable in subject.movable] == ["stem", "stages.0", "stages.1", "stages.2", "head"]
    assert [str(block) for block in subject.movable[0].blocks(16)] == ["Conv k3 c3>16 s1 @32", "XX k3 c16>72 s2 @32"]
    moved = subject.at({"stages.0": 80})
    assert [superblock.width for superblock in moved.superblocks] == [72, 80, 8, 200, 96]


def test_what_was_measured_once_is_not_measured_again(tmp_path: Path) -> None:
    subject, meter = SUBJECTS["ours"], meter_at(64)
    first = places_of(subject, meter, tmp_path)
    rows = LatencyTable(Journal(tmp_path / "latency.jsonl"), meter.setting)
    measured = Tracker(WorkItem("rows", None))
    assert find_places(subject, rows, meter, measured) == first
    assert not measured.done


def test_a_machine_that_slows_down_all_the_while_makes_no_steps(tmp_path: Path) -> None:
    meter = Simulated(lambda part: float(len(part.groups())), lambda timing: 1.005**timing)
    rows = LatencyTable(Journal(tmp_path / "latency.jsonl"), meter.setting)
    for found in find_places(foreign("tests.fixtures.align_networks:tangled", 16, 5), rows, meter):
        assert all(option.ms == pytest.approx(found.now.ms, rel=0.02) for option in found.options)
    assert max(row.drift for row in rows.block_rows) > 2
    assert len(rows.sentinels) == 1


def test_a_machine_that_is_busy_at_first_makes_no_place_slow(tmp_path: Path) -> None:
    meter = Simulated(lambda part: float(len(part.groups())), lambda timing: 13.0 if timing < 60 else 1.0)
    rows = LatencyTable(Journal(tmp_path / "latency.jsonl"), meter.setting)
    subject = foreign("tests.fixtures.align_networks:tangled", 16, 5)
    for movable, found in zip(subject.movable, find_places(subject, rows, meter), strict=True):
        assert found.now.ms == pytest.approx(len(movable.blocks(movable.width)))
    readings = next(iter(rows.sentinels.values()))
    assert readings[0] > 10 * readings[-1]


def test_few_rounds_that_happen_to_agree_are_not_taken_for_certainty() -> None:
    few, many = (Ratio(ms=1.0, before_ms=1.0, rounds=(0.98, 0.99, 1.0) * times) for times in (1, 4))
    assert few.above == pytest.approx(0.99 + 4.303 * few.error, rel=1e-3)
    assert many.above == pytest.approx(0.99 + 2.201 * many.error, rel=1e-3)


def test_a_cut_network_is_offered_nothing_wider_than_it_was(tmp_path: Path) -> None:
    subject = foreign("genet.models.cifar:vgg16", **{"features.0": 62, "features.7": 127, "features.14": 150})
    dense = {place.name: place.width for place in foreign("genet.models.cifar:vgg16").movable}
    for found in places_of(subject, meter_at(64), tmp_path):
        assert all(option.width <= dense[found.name] for option in found.options)


def test_a_network_of_which_no_width_may_move_is_refused(tmp_path: Path) -> None:
    subject = foreign("tests.fixtures.align_networks:fixed", 16, 5)
    with pytest.raises(EvidenceError, match="got no layer whose width may change, expected at least one: its channels are"):
        places_of(subject, meter_at(8), tmp_path)


@pytest.mark.parametrize("width", [3, 16, 35, 64, 200, 2048])
def test_a_grid_holds_the_present_width_and_never_leaves_its_limits(width: int) -> None:
    for reach in (1.5, 3.0):
        found = grid(width, reach=reach)
        assert width in found
        assert list(found) == sorted(set(found))
        assert min(found) >= min(width, round(width / 2))
        assert max(found) <= round(reach * width)
    assert all(each % 8 == 0 or each == width for each in grid(width, multiple=8))


@pytest.mark.slow
def test_where_the_host_is_what_one_waits_for_a_network_grows_for_nothing() -> None:
    found = scale(foreign("genet.models.cifar:resnet56"), ("width", "resolution"), meter_at(1, "eager"))
    assert found.best is not None
    assert found.best.measured.mean == pytest.approx(1.0)
    assert found.best.macs > 4 * found.macs
    assert found.best.resolution > 32
    assert found.best.parameters > found.parameters


def test_widths_that_are_multiples_of_8_grow_in_eights_and_others_as_they_come() -> None:
    own, odd = foreign("genet.models.cifar:vgg16"), foreign("genet.models.cifar:vgg16", **{"features.0": 35})
    assert all(width % 8 == 0 for width in widths_at(own, 1.1).values())
    assert widths_at(odd, 1.1)["features.0"] == 38


def test_where_the_device_is_full_nothing_grows() -> None:
    found = scale(SUBJECTS["ours"], ("width",), meter_at(4096))
    assert found.best is None or found.best.macs < 1.05 * found.macs
    assert len(found.tried) == 5
