"""What other libraries raise, in one line that tells enough."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genet.cli.main import main
from genet.errors import first_line


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (KeyError("cfg"), "KeyError: 'cfg'"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("no room\nstack of C++"), "no room"),
        (RuntimeError("Errors of the graph:\n  node 3\n  node 4"), "Errors of the graph: node 3"),
    ],
)
def test_a_reason_is_a_sentence_or_has_its_type(fault: Exception, line: str) -> None:
    assert first_line(fault) == line


def misfit(state: dict[str, object]) -> str:
    with pytest.raises(RuntimeError) as raised:
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)).load_state_dict(state)
    return first_line(raised.value)


def test_weights_that_do_not_fit_are_named_with_the_likely_reason() -> None:
    weights = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)).state_dict()
    law = "the state_dict does not fit: "
    assert misfit(weights) == f"{law}has 1.weight of size [5, 3] instead of [4, 3], 1.bias of size [5] instead of [4]"
    assert misfit({"model": weights, "epoch": 3}) == (
        f"{law}it lacks 0.weight, 0.bias, 1.weight and 1 more and has model, epoch in addition; the weights are under ['model']"
    )
    parallel = {f"module.{name}": torch.zeros(1) for name in weights}
    assert misfit(parallel).endswith(
        "has module.0.weight, module.0.bias, module.1.weight and 1 more in addition; remove module. from the names, which "
        "DataParallel added"
    )


def test_debug_shows_what_led_to_a_fault(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    with pytest.raises(Exception, match=r"importing json\.tool:nothing as MODULE:ATTRIBUTE failed") as raised:
        main(["import", "json.tool:nothing", "--into", str(tmp_path / "it"), "--debug"])
    assert not raised.value.__suppress_context__
    assert isinstance(raised.value.__context__, AttributeError)
