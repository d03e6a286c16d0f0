"""Facts about GPUs, for the analytic device model: the values of their makers' data sheets, and None if they give none.

Peaks are dense (no structured sparsity) and tensor cores accumulate in fp32, as PyTorch has them do. Clocks float, so a
real card sustains less; one calibration factor takes care of that.
"""

from __future__ import annotations

import difflib
import re

from genet.errors import DeviceError
from genet.storage import Record


class Software(Record):
    """How eager PyTorch of some year runs an operation.

    `host_us` is the host's time for one operation, in microseconds. Swish was a sigmoid and a product before it had a
    kernel of its own, and cuDNN 7 looped over the groups of a convolution, one launch each.
    """

    host_us: float
    swish_kernels: int = 1
    loops_over_groups: bool = False


# 5 to 10 us are usual for PyTorch 2; nobody measured each GPU's host. Zero would call every small network device-bound,
# which is certainly wrong.
TODAY = Software(host_us=8)
# The software of the GENet paper's timings. 40 us: table 7's batch-1 column over the number of operations. It is the one
# constant of the model that comes neither from the timing of a layer nor from a data sheet.
OF_2020 = Software(host_us=40, swish_kernels=2, loops_over_groups=True)


class Engine(Record):
    """How TensorRT of some year runs a network.

    `kernel_us` is what a kernel takes beside its work, in microseconds; the default is that of single layers on a V100. Swish
    was a pass of its own before engines fused it into the convolution.
    """

    kernel_us: float = 4
    fuses_swish: bool = True


ENGINE_OF_2021 = Engine()  # of the utilization paper's V100
# The engines of the GENet paper's T4. 20 us: the batch-1 columns of tables 8 and 9 over the number of kernels are 18 us at least.
# That swish is a pass of its own was seen in table 8; a year later, on that V100, it was fused.
ENGINE_OF_2020 = Engine(kernel_us=20, fuses_swish=False)


class Gpu(Record):
    """One GPU: streaming multiprocessors, peaks in TFLOP/s, memory bandwidth in GB/s, second-level cache in MB.

    `fp16_tflops` and `fp32_tflops` are those of the CUDA cores, `fp16_tensor_tflops`, `tf32_tflops` and `int8_tensor_tops` of the
    tensor cores; None means that there are none, or that the number is not known. `software` and `engine` are those of the
    published timings of the GPU.
    """

    key: str
    name: str
    sms: int
    fp16_tensor_tflops: float | None
    tf32_tflops: float | None
    int8_tensor_tops: float | None
    fp32_tflops: float
    fp16_tflops: float | None
    bandwidth_gbs: float
    l2_mb: float | None
    software: Software = TODAY
    engine: Engine = ENGINE_OF_2021


def _gpu(
    key: str,
    name: str,
    sms: int,
    tensor: tuple[float | None, float | None, float | None],
    cores: tuple[float, float | None],
    memory: tuple[float, float | None],
) -> Gpu:
    """Return a row of the table below: (fp16, tf32, int8) of the tensor cores, (fp32, fp16) of the others, (GB/s, L2 in MB)."""
    return Gpu(
        key=key,
        name=name,
        sms=sms,
        fp16_tensor_tflops=tensor[0],
        tf32_tflops=tensor[1],
        int8_tensor_tops=tensor[2],
        fp32_tflops=cores[0],
        fp16_tflops=cores[1],
        bandwidth_gbs=memory[0],
        l2_mb=memory[1],
    )


GPUS: tuple[Gpu, ...] = (
    # Volta white paper
    _gpu("v100", "Tesla V100 SXM2", 80, (125, None, None), (15.7, 31.4), (900, 6)).model_copy(update={"software": OF_2020}),
    # Turing white paper; 70 W keep it well below
    _gpu("t4", "Tesla T4", 40, (65, None, 130), (8.1, 16.2), (320, 4)).model_copy(update={"engine": ENGINE_OF_2020}),
    _gpu("titan-v", "Titan V", 80, (110, None, None), (14.9, 29.8), (653, 4.5)),  # tail-effect paper, maker's data sheet
    _gpu("p6000", "Quadro P6000", 30, (None, None, None), (12.0, 0.19), (432, 3)),  # tail-effect paper; GP102 has fp16 at 1:64
    _gpu("a100", "A100 SXM 40 GB", 108, (312, 156, 624), (19.5, 78), (1555, 40)),  # Ampere white paper
    _gpu("a100-80gb", "A100 SXM 80 GB", 108, (312, 156, 624), (19.5, 78), (2039, 40)),
    _gpu("h100", "H100 SXM", 132, (989, 494, 1979), (67, 134), (3350, 50)),  # Hopper white paper
    _gpu("h200", "H200 SXM", 132, (989, 494, 1979), (67, 134), (4800, 50)),
    _gpu("l4", "L4", 58, (121, 60, 242), (30.3, 30.3), (300, 48)),  # data sheet, halved where it counts sparsity
    _gpu("rtx-3090", "GeForce RTX 3090", 82, (71, 35.6, 284), (35.6, 35.6), (936, 6)),  # GA102 white paper
    _gpu("rtx-4090", "GeForce RTX 4090", 128, (165, 82.6, 660), (82.6, 82.6), (1008, 72)),  # Ada white paper
    _gpu("rtx-5090", "GeForce RTX 5090", 170, (209, 104.8, 838), (104.8, 104.8), (1792, 96)),  # Blackwell white paper
    _gpu("jetson-nano", "Jetson Nano", 1, (None, None, None), (0.24, 0.47), (25.6, None)),  # 128 cores; tail-effect paper
    # 40 and 170 TOPS of int8 with sparsity on the GPU alone, so half of it without, and a quarter in dense fp16
    _gpu("orin-nano", "Jetson Orin Nano 8 GB", 8, (10, None, 20), (1.3, None), (68, None)),
    _gpu("agx-orin", "Jetson AGX Orin 64 GB", 16, (42, None, 85), (5.3, None), (204.8, None)),
)


def find_gpu(name: str) -> Gpu:
    """Return the GPU of this key or name, whatever its case, spaces, dashes and underscores; DeviceError if there is none."""
    known = {_plain(spelling): gpu for gpu in GPUS for spelling in (gpu.name, gpu.key)}
    if _plain(name) in known:
        return known[_plain(name)]
    near = dict.fromkeys(known[match].key for match in difflib.get_close_matches(_plain(name), known, n=3, cutoff=0.4))
    hint = f"did you mean {' or '.join(near)}? Known" if near else "known"
    raise DeviceError(f"an estimate needs a GPU from the table, got {name!r}; {hint} are {', '.join(gpu.key for gpu in GPUS)}")


def similar_gpu(name: str) -> Gpu | None:
    """Return the GPU whose key is part of a driver's name for it, such as NVIDIA H200; None if there is none."""
    fitting = [gpu for gpu in GPUS if _plain(gpu.key) in _plain(name)]
    return max(fitting, key=lambda gpu: len(gpu.key), default=None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())
