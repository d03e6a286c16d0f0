"""Budgets: three forms that users write, and how one becomes another."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genet.config.budget import RULE, Budget
from genet.config.recipe import Select

amounts = st.floats(1e-6, 1e6, exclude_min=True)
budgets = st.builds(Budget, amounts, st.sampled_from(["ms", "ms/image", "x"]))


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        (0.34, "0.34ms/image"),
        (2, "2ms/image"),
        (1e-6, "0.000001ms/image"),
        ("5ms", "5ms"),
        ("0.20ms/image", "0.2ms/image"),
        ("0.5x", "0.5x"),
        ("0.50x", "0.5x"),
        ("1.0x", "1x"),
    ],
)
def test_a_budget_is_per_batch_per_image_or_a_multiple_and_a_number_alone_is_per_image(given: Any, printed: str) -> None:
    assert str(Select.model_validate({"budgets": [given]}).budgets[0]) == printed


@pytest.mark.parametrize(
    "given",
    [
        *(0, -1, True, False, None, math.nan, math.inf, [1]),
        *(
            "",
            "x",
            "0x",
            "0.0x",
            "-1x",
            ".5x",
            "0.5",
            "0.5 x",
            "0.5X",
            "1e-1x",
            "ms",
            "0ms",
            "5 ms",
            "5ms/batch",
            "5s",
            "0.2ms/images",
        ),
    ],
)
def test_anything_else_is_no_budget(given: Any) -> None:
    with pytest.raises(ValidationError, match=re.escape(RULE)):
        Select.model_validate({"budgets": [given]})


@pytest.mark.parametrize(
    ("budgets", "fault"),
    [
        ((), "must have at least one entry"),
        (("1x", "1.0x"), "must all differ"),
        ((1, 1.0), "must all differ"),
        ((0.2, "0.2ms/image"), "must all differ"),
    ],
)
def test_budgets_are_one_or_more_and_all_differ(budgets: Any, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Select.model_validate({"budgets": budgets})


@pytest.mark.parametrize(
    ("given", "ms", "told"),
    [
        ("16ms", 16.0, "16ms (1 ms/image, 0.25x)"),
        (0.34, 5.44, "0.34ms/image (5.44 ms per batch of 16, 0.085x)"),
        ("0.5x", 32.0, "0.5x (32 ms per batch of 16, 2 ms/image)"),
    ],
)
def test_each_form_is_told_in_the_two_others(given: Any, ms: float, told: str) -> None:
    budget = Budget.parse(given)
    assert budget.ms(64.0, 16) == pytest.approx(ms)
    assert budget.all_forms(64.0, 16) == told


def test_without_the_masternets_latency_the_forms_in_milliseconds_are_told_alone() -> None:
    assert [Budget.parse(each).others(None, 16) for each in ("16ms", 0.5, "0.5x")] == ["1 ms/image", "8 ms per batch of 16", ""]


@given(amounts)
def test_one_time_is_the_masternets_own_latency_to_the_last_digit(ms: float) -> None:
    assert Budget.parse("1.0x").ms(ms, 7) == ms


@given(budgets)
def test_what_is_printed_reads_back(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget
    select = Select(budgets=(budget,))
    assert Select.model_validate_json(select.model_dump_json(), strict=True) == select


@given(budgets, amounts, amounts, st.integers(1, 256))
def test_the_smallest_budget_that_can_be_met_is_in_its_own_form_and_never_rounded_down(
    budget: Budget, ms: float, masternet_ms: float, batch: int
) -> None:
    smallest = budget.smallest(ms, masternet_ms, batch)
    assert smallest.unit == budget.unit
    assert ms * (1 - 1e-12) <= smallest.ms(masternet_ms, batch) <= 1.0011 * ms
