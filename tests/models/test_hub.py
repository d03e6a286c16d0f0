"""Weights that are fetched: from the cache, from a hub that answers, or one line that says which does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from huggingface_hub import constants

from genet.arch.external import ExternalModel
from genet.arch.network import Input
from genet.errors import GenetError
from genet.models import hub
from genet.models.external import build_structure
from genet.models.weights import save_weights

OWN = ExternalModel(source="tests.fixtures.others:fetched", input=Input(channels=1, classes=10, resolution=32))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """A hub that takes calls and never answers, and empty caches."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
        monkeypatch.setattr(hub, "WAIT_S", 0.2)
        yield server


def calls(server: socket.socket) -> int:
    """How many were made."""
    server.setblocking(False)
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_a_silent_hub_is_asked_once_and_named(silent: socket.socket) -> None:
    with pytest.raises(GenetError) as refused:
        hub.pretrained_model("test_byobnet")
    host = constants.ENDPOINT.removeprefix("http://")
    assert str(refused.value).startswith(
        f"timm:test_byobnet: got no answer from {host} and no copy in the cache, expected one of"
    )
    assert "\n" not in str(refused.value)
    assert calls(silent) == 1


def test_a_users_own_function_that_fetches_is_told_the_same(silent: socket.socket) -> None:
    with pytest.raises(GenetError, match=r"tests\.fixtures\.others:fetched: got no answer from 127\.0\.0\.1"):
        build_structure(OWN)


def test_what_is_in_the_cache_is_taken_while_the_hub_is_silent(silent: socket.socket) -> None:
    kept = Path(constants.HF_HUB_CACHE) / "models--timm--test_byobnet.r160_in1k"
    model = timm.create_model("test_byobnet")
    save_weights(model, kept / "snapshots" / "0" / "model.safetensors")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0")
    found = hub.pretrained_model("test_byobnet")
    assert torch.equal(found.get_parameter("head.fc.weight"), model.get_parameter("head.fc.weight"))
    assert not found.training


def test_the_same_goes_for_what_torch_itself_fetches(silent: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
    def fetch() -> object:
        return torch.hub.load_state_dict_from_url(f"{constants.ENDPOINT}/weights.pth")

    with pytest.raises(GenetError, match=r"mine: got no answer from 127\.0\.0\.1"), hub.fetching("mine"):
        fetch()
    kept = Path(torch.hub.get_dir()) / "checkpoints" / "weights.pth"
    torch.save({"w": torch.ones(1)}, kept)
    with hub.fetching("mine"):
        assert fetch() == {"w": torch.ones(1)}


def test_afterwards_everything_is_as_before() -> None:
    before = constants.HF_HUB_OFFLINE, torch.hub.urlopen
    with pytest.raises(ZeroDivisionError), hub.fetching("mine"):
        print(1 / 0)
    assert (constants.HF_HUB_OFFLINE, torch.hub.urlopen) == before


class Refusing(BaseHTTPRequestHandler):
    """Finds nothing."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None: ...


def test_a_hub_that_refuses_does_answer(silent: socket.socket) -> None:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.handle_request, daemon=True).start()
    assert hub._answers(f"http://127.0.0.1:{server.server_port}")
    server.server_close()
    assert not hub._answers(f"http://127.0.0.1:{server.server_port}")  # nobody is there any more


def test_a_model_without_weights_is_no_matter_of_the_network(silent: socket.socket) -> None:
    with pytest.raises(GenetError, match=r"timm:resnet10t\.nowhere: got no trained weights \(Invalid pretrained tag"):
        hub.pretrained_model("resnet10t.nowhere")
    assert calls(silent) == 0
