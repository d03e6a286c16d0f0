"""What trials leave behind: when a curve has settled, and what can be read back of a journal, whatever befell it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.config.reader import read_space
from genet.config.recipe import Distill
from genet.errors import EvidenceError
from genet.storage import Journal
from genet.trials.plan import plan_trials
from genet.trials.results import TRIED_AGAIN, Failure, FailureKind, Seconds, TrialResult, failed, read_results, settled

SPACE = read_space("digits")
TRIALS = plan_trials(SPACE, SPACE.widths_on_offer(), 32, 0, Distill(epochs=1, learning_rate=0.1, paired_fraction=0.3))
KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

share = st.floats(min_value=0, max_value=1)
a_while = st.floats(min_value=0, max_value=1e6)
curves = st.lists(share, min_size=1, max_size=12)
trials = st.sampled_from(TRIALS)
spent = st.builds(Seconds, images=a_while, prefix=a_while, training=a_while, validation=a_while)
good_results = st.builds(
    lambda trial, curve, group, seconds: TrialResult(
        **dict(trial), accuracy=curve[-1], curve=tuple(curve), group=group, seconds=seconds
    ),
    trials,
    curves,
    st.integers(min_value=1, max_value=50),
    spent,
)
failed_results = st.builds(failed, trials, st.sampled_from(KINDS), st.text(), st.integers(min_value=1, max_value=50), spent)
results = good_results | failed_results


@contextmanager
def journal_of(written: list[TrialResult]) -> Iterator[Journal]:
    """A journal that holds these results; hypothesis has no folder of its own for every example."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "trials.jsonl")
        for result in written:
            journal.append(result.model_dump(mode="json"))
        yield journal


def latest(written: list[TrialResult]) -> dict[str, TrialResult]:
    return {result.id: result for result in written}


# Settled curves


@given(curve=curves, more=st.integers(min_value=0, max_value=5))
def test_no_curve_settles_within_its_patience(curve: list[float], more: int) -> None:
    assert not settled(curve, patience=len(curve) + more)


@given(curve=curves)
def test_without_patience_none_settles(curve: list[float]) -> None:
    assert not settled(curve, 0)


@given(curve=st.lists(share, min_size=2, max_size=9, unique=True), patience=st.integers(min_value=1, max_value=5))
def test_a_curve_that_rises_each_epoch_never_settles(curve: list[float], patience: int) -> None:
    assert not settled(sorted(curve), patience)


@given(height=share, patience=st.integers(min_value=1, max_value=5), more=st.integers(min_value=1, max_value=5))
def test_a_flat_curve_settles_as_soon_as_its_patience_is_over(height: float, patience: int, more: int) -> None:
    assert settled([height] * (patience + more), patience)
    assert not settled([height] * patience, patience)


def test_a_late_rise_keeps_a_trial_going_as_long_as_it_is_within_its_patience() -> None:
    assert not settled([0.5, 0.9, 0.5, 0.5], patience=3)
    assert settled([0.5, 0.9, 0.5, 0.5, 0.5], patience=3)
    assert not settled([0.5, 0.9, 0.5, 0.91], patience=2)


# Results


@given(trial=trials, kind=st.sampled_from(KINDS), message=st.text())
def test_a_failed_trial_has_a_kind_and_no_accuracy_at_all(trial, kind: FailureKind, message: str) -> None:
    result = failed(trial, kind, message)
    assert result.accuracy is None
    assert result.failure == Failure(kind=kind, message=message)
    assert result.id == trial.id
    assert str(result.failure).startswith(kind)


def test_what_is_the_networks_own_doing_is_not_tried_again_by_itself() -> None:
    assert set(KINDS) - set(TRIED_AGAIN) == {"out of memory", "non-finite loss", "time limit", "no kernels"}


def test_the_seconds_of_a_trial_are_all_of_its_parts() -> None:
    parts = {part: 2.0**number for number, part in enumerate(Seconds.model_fields)}
    assert Seconds(**parts).total == 2.0 ** len(parts) - 1


@given(written=st.lists(results, max_size=5))
def test_results_come_back_from_a_journal_as_they_were_written_and_the_latest_counts(written: list[TrialResult]) -> None:
    with journal_of(written) as journal:
        assert read_results(journal) == latest(written)


def test_a_journal_that_is_not_there_holds_no_results(tmp_path: Path) -> None:
    assert read_results(Journal(tmp_path / "trials.jsonl")) == {}


@pytest.mark.parametrize("foreign", [{"trial": "abc"}, {}, {"row": "block", "ms": 1.0}])
def test_a_whole_line_that_is_no_result_is_named_with_its_file(tmp_path: Path, foreign: dict[str, object]) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    journal.append(foreign)
    with pytest.raises(EvidenceError, match=r"trials\.jsonl: every line must be a trial's result, got \{.*move the file away"):
        read_results(journal)


def test_a_result_with_one_field_more_is_foreign(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    journal.append({**failed(TRIALS[0], "bug", "x").model_dump(mode="json"), "colour": "red"})
    with pytest.raises(EvidenceError, match="every line must be a trial's result"):
        read_results(journal)


def test_a_damaged_line_counts_as_a_trial_not_run(tmp_path: Path) -> None:
    written = [failed(trial, "time limit", "x") for trial in TRIALS[:3]]
    journal = Journal(tmp_path / "trials.jsonl")
    for result in written:
        journal.append(result.model_dump(mode="json"))
    lines = journal.path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("time limit", "tame limit")
    journal.path.write_text("".join(lines))
    assert read_results(journal) == latest([written[0], written[2]])
    assert journal.read().damaged == (2,)


@given(written=st.lists(results, min_size=1, max_size=4), where=share, bit=st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_costs_the_lines_it_touches_and_never_gives_a_wrong_result(
    written: list[TrialResult], where: float, bit: int
) -> None:
    with journal_of(written) as journal:
        data = bytearray(journal.path.read_bytes())
        place = min(int(where * len(data)), len(data) - 1)
        data[place] ^= 1 << bit
        journal.path.write_bytes(data)
        line = bytes(journal_bytes(written))[:place].count(b"\n")
        at_break = journal_bytes(written)[place : place + 1] == b"\n"
        touched = {line, line + 1} if at_break else {line}
        whole = [result for number, result in enumerate(written) if number not in touched]
        assert read_results(journal) == latest(whole)


def journal_bytes(written: list[TrialResult]) -> bytes:
    with journal_of(written) as journal:
        return journal.path.read_bytes()


@given(written=st.lists(results, min_size=1, max_size=4), where=share)
def test_a_journal_cut_at_any_byte_keeps_all_its_whole_lines_and_can_be_written_on(
    written: list[TrialResult], where: float
) -> None:
    with journal_of(written) as journal:
        data = journal.path.read_bytes()[: int(where * journal.path.stat().st_size)]
        journal.path.write_bytes(data)
        whole = written[: data.count(b"\n")]
        assert read_results(journal) == latest(whole)
        assert journal.read().damaged == ()
        journal.append(written[-1].model_dump(mode="json"))
        assert read_results(journal) == latest([*whole, written[-1]])
