"""Faults in the words of a program: its arguments have no dashes, and commands that it is told to give stay as they are."""

from __future__ import annotations

import pytest

from genet.config.options import faults_name_arguments
from genet.errors import GenetError


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("a does not exist; give --data FOLDER, where it lies now", "a does not exist; give data=FOLDER, where it lies now"),
        ("got no GPU; use --device cpu", "got no GPU; use device cpu"),
        ("got no weights; genet train a.yaml --recipe R --into a trains it", None),
        (
            "it is another now; genet import nets:net --into FOLDER, or use --runtime eager",
            "it is another now; genet import nets:net --into FOLDER, or use runtime eager",
        ),
        ("go on with --any-master", "go on with `genet run --any-master`"),
    ],
)
def test_options_are_arguments_for_a_program_but_not_those_of_a_command(told: str, expected: str | None) -> None:
    with pytest.raises(GenetError) as fault, faults_name_arguments():
        raise GenetError(told)
    assert str(fault.value) == (expected or told)
