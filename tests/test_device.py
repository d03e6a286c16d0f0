"""The device at hand: opened by name, refused with a way out, and described without a guess."""

from __future__ import annotations

import platform

import pytest
import torch

from genet.device import DeviceCard, open_device, read_card
from genet.errors import DeviceError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_cpu_opens_the_processor() -> None:
    assert open_device("cpu") == torch.device("cpu")


def test_auto_opens_the_first_gpu_where_there_is_one_and_else_the_processor() -> None:
    wanted = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    assert open_device("auto") == wanted


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_says_so_and_names_the_processor_as_the_way_out(name: str) -> None:
    with pytest.raises(DeviceError, match=f"^device {name} must be an NVIDIA GPU .* none here; use --device cpu$"):
        open_device(name)


def test_the_card_of_the_processor_has_a_name_and_no_fact_of_a_gpu() -> None:
    card = read_card(torch.device("cpu"))
    assert (card.kind, card.l2_bytes, card.driver, card.cuda, card.cudnn) == ("cpu", None, None, None, None)
    assert card.name.strip()
    assert card.capability


def test_the_card_names_the_software_at_work() -> None:
    card = read_card(torch.device("cpu"))
    assert (card.torch, card.python) == (torch.__version__, platform.python_version())
    assert card.platform == f"{platform.system()} {platform.machine()}"


def test_the_processors_of_a_processor_are_the_threads_that_torch_uses() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert read_card(torch.device("cpu")).processors == 1
    finally:
        torch.set_num_threads(threads)


def test_the_memory_is_in_bytes_or_unknown() -> None:
    memory = read_card(torch.device("cpu")).memory_bytes
    assert memory is None or memory > 2**27


def test_the_same_machine_gives_the_same_card_and_a_card_survives_its_file(tmp_path) -> None:
    card = read_card(torch.device("cpu"))
    assert read_card(torch.device("cpu")) == card
    card.save(tmp_path / "card.json")
    assert DeviceCard.load(tmp_path / "card.json") == card


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_card_of_a_gpu_has_its_facts() -> None:
    device = open_device("cuda")
    card = read_card(device)
    assert device == torch.device("cuda", 0)
    assert (card.kind, card.name) == ("cuda", torch.cuda.get_device_name(0))
    assert card.capability == ".".join(map(str, torch.cuda.get_device_capability(0)))
    assert card.processors >= 1
    assert card.memory_bytes > 2**30
    assert card.l2_bytes > 2**18
    assert card.cuda == torch.version.cuda
    assert card.cudnn == torch.backends.cudnn.version()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_beyond_those_here_is_refused_with_their_number() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(DeviceError, match=f"must be one of the {count} GPUs here; use cuda:{count - 1} or below"):
        open_device(f"cuda:{count}")
