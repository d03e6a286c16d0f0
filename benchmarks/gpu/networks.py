"""Whole networks of timm and GENets, timed one by one; each is kept as it is found, and what failed is tried again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from genet.errors import DeviceError, MeasurementError
from genet.latency.timing.meter import Meter
from genet.latency.workload import Workload, read_workload
from genet.storage import Journal
from gpu.bench import Bench
from gpu.checks import SLOW, run_tests
from gpu.studies import serve_with

GENETS = ("genet-light", "genet-normal", "genet-large")
IN_THE_PAPER = (
    *("resnet34", "resnet152", "regnety_002", "regnety_006", "mobilenetv2_140"),
    *("efficientnet_b0", "efficientnet_b2", "efficientnet_b3"),
)
OTHERS = (
    *("gernet_s", "gernet_m", "gernet_l", "resnet18", "resnet50", "resnet101", "mobilenetv2_100", "mobilenetv2_050"),
    *("regnety_004", "regnety_008", "efficientnet_b1"),
)
NETWORKS = (*GENETS, *(f"timm:{name}" for name in IN_THE_PAPER + OTHERS))
COMPILED = (*GENETS, *(f"timm:{name}" for name in ("resnet50", "efficientnet_b0", "gernet_m", "mobilenetv2_100", "regnety_006")))
SMALL = ("XX k3 c16 @8", "timm:test_byobnet")


def networks(bench: Bench) -> None:
    """Time all networks, eager and as a CUDA graph, each in both before the next."""
    runtimes = ("eager", "cudagraph") if bench.cuda else ("eager",)
    _time(bench, SMALL if bench.small else NETWORKS, runtimes)


def compiled(bench: Bench) -> None:
    """Time some of them compiled, serve one compiled, and run the tests that compile."""
    _time(bench, SMALL[:1] if bench.small else COMPILED, ("compile",))
    torch.compiler.reset()
    serve_with(bench, ("cudagraph", "compile") if bench.cuda else ("compile",))
    run_tests(bench, SLOW, bench.folder / "tests.json")


def _time(bench: Bench, names: Sequence[str], runtimes: Sequence[str]) -> None:
    """Time what the journal does not hold in this setting; DeviceError names those that failed."""
    journal = Journal(bench.folder / "networks.jsonl")
    known = {(record["network"], record["setting"]) for record in journal.read().records if "ms" in record}
    meters = [bench.meter(runtime=runtime) for runtime in runtimes]
    failed: dict[str, str] = {}
    for name, meter in _each(names, meters):
        if (name, meter.setting.digest) in known:
            continue
        part = read_workload(name)
        try:
            (timing,) = meter.prepare([part])()
            found: dict[str, object] = {"ms": timing.ms, "spread": timing.spread, "ms_per_image": timing.ms / meter.setting.batch}
        except MeasurementError as fault:
            found = {"failure": str(fault)}
            failed[name] = str(fault)
        journal.append({"network": name, **_facts(part, meter), **found})
        print(name, meter.setting.runtime, found, flush=True)
        if meter.setting.runtime == "compile":
            torch.compiler.reset()  # or the code of all networks stays, and after some nothing is compiled any more
        bench.give_back()
    if failed:
        first = next(iter(failed.values()))
        raise DeviceError(
            f"timing {len(failed)} of {len(names)} networks failed: {', '.join(failed)}; see networks.jsonl ({first})"
        )


def _each(names: Sequence[str], meters: Sequence[Meter]) -> Iterable[tuple[str, Meter]]:
    return ((name, meter) for name in names for meter in meters)


def _facts(part: Workload, meter: Meter) -> dict[str, object]:
    """Return what a network is, and how it was timed; MACs and parameters are per image and of convolutions and linear layers."""
    setting, ops = meter.setting, part.ops()
    return {
        "runtime": setting.runtime,
        "resolution": part.image[-1],
        "macs": sum(op.macs for op in ops),
        "parameters": sum(op.weights for op in ops if op.macs),
        "kernels": len(ops),
        "setting": setting.digest,
        "key": setting.model_dump(mode="json"),
    }
