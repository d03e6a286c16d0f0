"""Commands as tests give them: what they answer, and what they say when they must fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from genet import cli


def answer(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The JSON line of a command that ends well, or with another exit code that has an answer."""
    capsys.readouterr()
    assert cli.main([*map(str, arguments), "--json"]) == code, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def fault(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command says that must fail."""
    assert cli.main([*map(str, arguments)]) == 2
    return capsys.readouterr().err.strip()
