"""The table of GPUs, and how one is found by name."""

from __future__ import annotations

import pytest

from genet.errors import DeviceError
from genet.latency.estimate.gpus import GPUS, find_gpu


@pytest.mark.parametrize("spelling", ["rtx-4090", "RTX 4090", "rtx_4090", "rtx4090", "GeForce RTX 4090"])
def test_case_spaces_and_dashes_do_not_matter(spelling: str) -> None:
    assert find_gpu(spelling).key == "rtx-4090"


def test_every_gpu_is_found_by_its_key_and_its_name() -> None:
    for gpu in GPUS:
        assert find_gpu(gpu.key) == find_gpu(gpu.name) == gpu


def test_an_unknown_gpu_names_the_nearest_and_all_that_are_known() -> None:
    with pytest.raises(DeviceError, match=r"got 'H300'; did you mean h[12]00") as fault:
        find_gpu("H300")
    assert all(gpu.key in str(fault.value) for gpu in GPUS)


def test_a_name_like_none_other_is_told_the_known_ones_only() -> None:
    with pytest.raises(DeviceError, match="got 'xyz'; known are v100"):
        find_gpu("xyz")


def test_the_papers_gpus_have_the_processors_the_papers_say() -> None:
    assert [find_gpu(name).sms for name in ("titan-v", "p6000", "v100", "jetson-nano")] == [80, 30, 80, 1]


def test_tensor_cores_outrun_the_cores_beside_them() -> None:
    for gpu in GPUS:
        assert (gpu.fp16_tensor_tflops or 99e9) > max(gpu.fp32_tflops, gpu.fp16_tflops or 0), gpu.key
        assert (gpu.tf32_tflops or 0) <= (gpu.fp16_tensor_tflops or 0), gpu.key
        assert (gpu.int8_tensor_tops or 99e9) >= 2 * (gpu.fp16_tensor_tflops or 0), gpu.key
