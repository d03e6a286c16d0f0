"""Options that a command line or a program gives by themselves, without a recipe's file: how latency is measured, and budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from genet.config.budget import Budget
from genet.config.recipe import Measure, Select
from genet.config.yaml_tree import compose_value, plain_values
from genet.errors import SpecError

Spelling = Callable[[str], str]  # of a name where a user gives it: `str` in a program


def as_option(name: str) -> str:
    """Return a name as an option of the command line."""
    return f"--{name.replace('_', '-')}"


def checked_measure(fields: Mapping[str, Any], spelled: Spelling = as_option) -> Measure:
    """Return the measurement options that a command line or a program asks for; SpecError with every option at fault."""
    try:
        return Measure.model_validate(dict(fields))
    except ValidationError as fault:
        raise SpecError(
            f"{spelled(str(error['loc'][0]))} {_rule(error['msg'])} (got {error['input']!r})" for error in fault.errors()
        ) from None


def standalone_measure(wanted: Measure) -> Measure:
    """Return options for a measurement that no recipe asks for: an estimate is of eager mode, as most published timings are."""
    if wanted.runtime == "auto" and wanted.device.startswith("estimate:"):
        return wanted.model_copy(update={"runtime": "eager"})
    return wanted


def checked_budgets(given: Sequence[object], spelled: Spelling = as_option) -> tuple[Budget, ...]:
    """Return budgets as a user writes them, none if none is given; SpecError with every one at fault."""
    if not given:
        return ()
    option = spelled("budget")
    try:
        return Select.model_validate({"budgets": [plain_values(compose_value(str(text), option)) for text in given]}).budgets
    except ValidationError as fault:
        raise SpecError(f"{option} {error['msg']} (got {error['input']!r})" for error in fault.errors()) from None


def _rule(message: str) -> str:
    known = ", ".join(Measure.model_fields)
    return message.replace("Input should be", "must be").replace("Extra inputs are not permitted", f"must be one of {known}")
