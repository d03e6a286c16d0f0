"""The runtimes a network can be served by. Each turns a module and its images into a work that the clock can repeat.

A network's latency depends on the runtime as much as on the device, and even the order of two networks does, so the
runtime is part of every row's key. Works for a GPU enqueue on the current stream, except those that `wait` for it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from genet.errors import DeviceError, MeasurementError
from genet.latency.clock import Work


def prepare(runtime: str, parts: Sequence[tuple[nn.Module, Tensor]]) -> tuple[Work, ...]:
    """One forward pass of each module on its images as a work of the given runtime.

    DeviceError where the runtime is not there, MeasurementError where it refuses a module.
    """
    if runtime == "compile":
        torch.compiler.reset()  # its limit of compilations would count the modules of a whole table otherwise
    return tuple(RUNTIMES[runtime](module, images) for module, images in parts)


def _eager(module: nn.Module, images: Tensor) -> Work:
    return partial(module, images)


def _cudagraph(module: nn.Module, images: Tensor) -> Work:
    """The kernels alone, recorded once and replayed: what the host costs to launch them is not in the time."""
    _need_cuda("cudagraph", images)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            module(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = module(images)

    def replay(_keep: tuple[object, ...] = (module, images, output)) -> None:
        graph.replay()

    return replay


def _compile(module: nn.Module, images: Tensor) -> Work:
    """torch.compile for these very shapes; compiled here, before the clock starts."""
    compiled = torch.compile(module, fullgraph=True, dynamic=False)
    try:
        compiled(images)
    except Exception as fault:  # whatever the compiler behind torch.compile raises
        raise MeasurementError(f"torch.compile must compile it, and does not: {_first_line(fault)}") from fault
    return partial(compiled, images)


def _onnxruntime(module: nn.Module, images: Tensor) -> Work:
    runtime = _import("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(_onnx(module, images), options, providers=_providers(runtime, images))
    except Exception as fault:  # onnxruntime raises classes of its own C++ binding
        raise MeasurementError(f"ONNX Runtime must load it, and does not: {_first_line(fault)}") from fault
    binding = session.io_binding()
    device = images.device.type
    place = {"device_type": device, "device_id": images.device.index or 0}
    binding.bind_input(
        "images", element_type=_onnx_type(images), shape=tuple(images.shape), buffer_ptr=images.data_ptr(), **place
    )
    binding.bind_output("answer", device)

    def run(_keep: Tensor = images) -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()  # it has streams of its own, which the events of another do not see

    return run


def _providers(runtime: ModuleType, images: Tensor) -> list[Any]:
    if images.device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise DeviceError(
            "runtime onnxruntime must reach the GPU, and the installed package does not; pip install onnxruntime-gpu, "
            "or --device cpu"
        )
    torch.cuda.synchronize(images.device)  # the images are there before another stream reads them
    return [("CUDAExecutionProvider", {"device_id": images.device.index or 0})]


def _tensorrt(module: nn.Module, images: Tensor) -> Work:
    trt = _import("tensorrt", "genet[tensorrt]")
    _need_cuda("tensorrt", images)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # newer versions know no other kind
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_onnx(module, images)):
        raise MeasurementError(f"TensorRT must read it, and does not: {parser.get_error(0).desc()}")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise MeasurementError("TensorRT must build an engine of it, and does not; its own log says why")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    answer = torch.empty(tuple(context.get_tensor_shape("answer")), dtype=images.dtype, device=images.device)
    context.set_tensor_address("images", images.data_ptr())
    context.set_tensor_address("answer", answer.data_ptr())

    def run(_keep: tuple[object, ...] = (engine, images, answer)) -> None:
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)

    return run


WAITING = ("onnxruntime",)  # works of these return when the device has answered, so the host's clock times them
RUNTIMES: dict[str, Callable[[nn.Module, Tensor], Work]] = {
    "eager": _eager,
    "cudagraph": _cudagraph,
    "compile": _compile,
    "onnxruntime": _onnxruntime,
    "tensorrt": _tensorrt,
}


def _onnx(module: nn.Module, images: Tensor) -> bytes:
    """The module as ONNX, for its one batch; the tracing exporter takes milliseconds where the newer one takes seconds."""
    buffer = io.BytesIO()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = images.clone(memory_format=torch.contiguous_format)
        try:
            torch.onnx.export(
                module,
                (plain,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                input_names=["images"],
                output_names=["answer"],
            )
        except Exception as fault:  # the exporter raises whatever the tracing met
            raise MeasurementError(f"it must export to ONNX, and does not: {_first_line(fault)}") from fault
    return buffer.getvalue()


def _onnx_type(images: Tensor) -> int:
    """The element type's number in ONNX, whose bfloat16 numpy does not have."""
    return {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}[images.dtype]


def _need_cuda(runtime: str, images: Tensor) -> None:
    if images.device.type != "cuda":
        raise DeviceError(
            f"runtime {runtime} must have an NVIDIA GPU, and runs on {images.device.type} here; use --runtime eager"
        )


def _import(package: str, install: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError:
        raise DeviceError(f"runtime {package} must have its package, and it is not installed: pip install '{install}'") from None


def _first_line(fault: Exception) -> str:
    text = str(fault).strip()
    return text.splitlines()[0][:200] if text else type(fault).__name__
