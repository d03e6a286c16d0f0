"""The final table of a run: every network once, with its fastest file; what was measured too badly to tell anything says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from genet.cli.final_table import print_outcomes
from genet.config.budget import Budget
from genet.export.manifest import EVIDENCE_FILE, ExportedFormat, ExportLatencies, Exports, FormatLatency
from genet.pipeline.run_folder import RunFolder
from genet.search.outcome import Outcomes
from tests.fixtures.commands import answer
from tests.fixtures.raced import KNOWN, WON, outcomes

REMARK, WARNING = "too noisy to tell (121%)", "other work disturbs this machine: timings of one network spread by 140%"


@pytest.fixture
def noisy(copy: RunFolder) -> RunFolder:
    """A run whose winner was measured at 8.6 ± 10.4 ms, and whose other budget was left undecided."""
    found = Outcomes.load(copy.results)
    measured = {"ms_per_image": 8.6, "interval_ms_per_image": 10.4}
    outcomes = tuple(each.model_copy(update=measured) for each in found.outcomes)
    straddling = {"measured_ms_per_image": 0.5, "interval_ms_per_image": 0.7}
    unmet = tuple(each.model_copy(update=straddling) for each in found.unmet)
    raced = tuple(each.model_copy(update=measured) for each in found.raced)
    found.model_copy(update={"outcomes": outcomes, "unmet": unmet, "raced": raced, "spread": 0.1}).save(copy.results)
    return copy


def printed_table(found: Outcomes, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    print_outcomes(found, Path("run"))
    return capsys.readouterr().out


def test_the_last_table_marks_it_and_repeats_the_warning(noisy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = Outcomes.load(noisy.results)
    printed = printed_table(found, capsys)
    words = " ".join(printed.split())
    assert "±10.4" not in printed, "no interval goes below zero"
    said = ("at most", "19.0000", "too noisy", "to tell", "not certified", "1.2000")
    assert [*map(printed.index, said)] == sorted(map(printed.index, said))
    assert WARNING in words
    calm = {"ms_per_image": 8.6, "interval_ms_per_image": 0.4}
    outcomes = tuple(each.model_copy(update=calm) for each in found.outcomes)
    undecided = found.model_copy(update={"outcomes": outcomes})
    assert "spread by 140%" in " ".join(printed_table(undecided, capsys).split()), "by the budget left undecided"
    quiet = undecided.model_copy(update={"unmet": ()})
    assert "noisy" not in printed_table(quiet, capsys)
    assert "spread by 90%" in " ".join(printed_table(quiet.model_copy(update={"spread": 0.9}), capsys).split())


def test_report_and_card_say_it_beside_the_latency(noisy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (outcome,) = Outcomes.load(noisy.results).outcomes
    answer(capsys, "report", noisy.path)
    page = noisy.report.read_text()
    assert f"on test images with a\nlatency of at most 19.0000 ms, {REMARK}." in page
    assert WARNING in page
    assert "could not be certified: the nearest network takes at most 1.2000 ms per image" in page
    assert not re.search(r"± (10\.4|0\.7)000", page)
    answer(capsys, "export", noisy.path, "--network", outcome.name, "--format", "genet-string")
    card = (noisy.path / outcome.export).with_name("card.md").read_text()
    assert f"at most 19.0000 ms per image, whole network (the upper end of a 99.9 % confidence interval): {REMARK} |" in card


def exported(name: str, runtime: str, ms: float) -> tuple[ExportedFormat, FormatLatency]:
    """A format of one file, half of whose answers are right, timed with a spread of a tenth."""
    file = {f"model.{name}": ""}
    form = ExportedFormat(
        format=name,
        purpose="",
        loading="",
        files=file,
        batches=(),
        relative_error=(),
        accuracy=0.5,
        test_images=10,
        source=None,
        packages={},
    )
    return form, FormatLatency(format=name, runtime=runtime, ms=ms, spread=0.1)


def test_a_network_of_two_budgets_is_listed_once_with_the_fastest_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = outcomes().outcomes
    other = first.model_copy(update={"budget": Budget.parse("0.4x")})
    timed = exported("pt2", "eager", 8.0), exported("onnx", "runtime", 2.05), exported("fp16", "runtime", 2.0)
    formats, served = zip(*timed, strict=True)
    serving = ExportLatencies(device="it", threads=2, batch=20, served=served)
    evidence = tmp_path / WON.export / EVIDENCE_FILE
    evidence.parent.mkdir(parents=True)
    Exports(inputs="", network=WON.network, exported=formats, left_out={}, serving=serving).save(evidence)
    print_outcomes(outcomes().model_copy(update={"outcomes": (first, other)}), tmp_path)
    printed = capsys.readouterr().out
    assert f"\n{WON.name}, winner for 0.5x and 0.4x\n" in printed
    assert printed.count(WON.network) == printed.count(f"exports: {tmp_path}") == 1
    told = " ".join(printed.split())
    assert "fastest: model.onnx in runtime, 0.1025 ms/image at batch 20 when exported, 0.49x the 0.2100 certified in" in told, (
        "and not model.fp16, which its spread does not tell from it"
    )
    noisy = first.model_copy(update={"interval_ms_per_image": 0.2})
    print_outcomes(outcomes().model_copy(update={"outcomes": (noisy,)}), tmp_path)
    told = " ".join(capsys.readouterr().out.split())
    assert "latencies ± half of a 99.9 % interval, or 'at most' its upper end." in told
    assert "0.1025 ms/image at batch 20 when exported; 50.0% on test images" in told, "and no multiple of what tells nothing"


@pytest.mark.parametrize(
    ("number", "shown"), [(999, "999"), (9_994, "9.99k"), (999_499, "999k"), (999_600, "1M"), (182_202, "182k"), (10**9, "1G")]
)
def test_a_count_of_parameters_is_told_in_three_digits_and_its_unit(
    number: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = outcomes().outcomes
    printed = printed_table(outcomes().model_copy(update={"outcomes": (row.model_copy(update={"parameters": number}),)}), capsys)
    assert re.search(rf"^{WON.name} .* {shown}\s*$", printed, re.MULTILINE)


def test_known_designs_that_are_within_no_scale_of_a_budget_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    larger, smaller = Budget.parse("0.8x"), Budget.parse("0.5x")
    missing = {"mobilenetv2": (larger, smaller), "regnet": (smaller,), "genet": (smaller,)}
    printed = printed_table(outcomes().model_copy(update={"not_within": missing}), capsys)
    line = "\nno scaled version of mobilenetv2 is certified within 0.8x, 0.5x; of regnet and\ngenet within 0.5x\n"
    assert line in printed
    assert "no scaled version" not in printed_table(outcomes(), capsys)


def test_the_network_that_a_known_design_is_held_against_is_named_in_the_words_of_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (row,) = outcomes().outcomes
    won = row.model_copy(update=dict(KNOWN))
    printed = printed_table(outcomes().model_copy(update={"outcomes": (won,)}), capsys)
    table, below = printed.split("accuracies are ±")
    assert "of the search" in table
    assert f"\n{WON.name}, best of the search for 0.5x\n" in below


def test_before_the_export_its_command_stands_in_place_of_files_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_outcomes(outcomes(), tmp_path / "my run")
    printed = capsys.readouterr().out
    assert f"  {WON.network}\n  next: genet export '{tmp_path}/my run'\n" in printed
    assert "exports:" not in printed
    assert "card.md" not in printed
