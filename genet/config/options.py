"""Options that a command line or a program gives without a recipe, and how errors name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from genet.config.budget import Budget
from genet.config.recipe import Measure, Select
from genet.config.yaml_tree import compose_value, plain_values
from genet.errors import GenetError, SpecError

Replacement = str | Callable[[re.Match[str]], str]
AS_ARGUMENTS: dict[str, Replacement] = {  # patterns of options in errors, and what to write instead for functions
    r"use --new-run for a new folder, or --run FOLDER": "give another folder",
    r"--new-run( for (a new folder|new trials))?": "another folder",
    r"(genet run )?--remeasure": "another folder",
    r"--any-master": "`genet run --any-master`",
    r"(--data FOLDER) to genet run or genet export": r"\1",
    r", or set input\.classes to \d+ in the network's file": "",
    r"set (space\.[\w.]+) to (\d+)": r"overrides={'\1': \2}",
    r"genet [a-z]+ [^;,`]*|(?<![\w./-])--([a-z-]+)( FOLDER)?": lambda found: (  # a command stays as it is to be given
        found[1].replace("-", "_") + ("=FOLDER" if found[2] else "") if found[1] else found[0]
    ),
}
Spelling = Callable[[str], str]  # of a name where a user gives it: `str` in a program


def as_option(name: str) -> str:
    """Return a name as an option of the command line."""
    return f"--{name.replace('_', '-')}"


@contextmanager
def faults_name_arguments() -> Iterator[None]:
    """Make the errors of the block, or of a function, name arguments in place of options of the command line."""
    try:
        yield
    except GenetError as fault:
        fault.args = tuple(_for_programs(str(line)) for line in fault.args)
        if isinstance(fault, SpecError):
            fault.faults = fault.args
        raise


def _for_programs(line: str) -> str:
    for option, argument in AS_ARGUMENTS.items():
        line = re.sub(option, argument, line)
    return line


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
