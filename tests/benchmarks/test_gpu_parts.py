"""What `benchmarks/gpu.sh` asks a GPU for can be asked: a mistyped name would cost the minutes of a borrowed machine."""

from __future__ import annotations

import itertools

from gpu.networks import COMPILED, NETWORKS
from gpu.probe import ROWS
from gpu.studies import EFFICIENTNETS, FOLDED, SERVED
from gpu.sweeps import BATCHED, PIXELS, WIDTHS, chains_of, layers

from genet.latency.timing.curves import read_range
from genet.latency.workload import read_blocks, read_workload, with_width


def test_every_network_block_and_layer_that_is_to_be_timed_can_be_read() -> None:
    for name in (*NETWORKS, *COMPILED, *FOLDED, *EFFICIENTNETS, *BATCHED, SERVED):
        assert read_workload(name).whole
    assert len({read_blocks(row) for row in ROWS}) == len(ROWS)
    for names, variable, widths in chains_of(WIDTHS, PIXELS):
        assert variable == "width"
        for name, width in itertools.product(names, widths):
            assert read_workload(with_width(name, width)).image[0] == width
    for _, layer, widths_on_offer, _ in layers():
        for width in read_range(widths_on_offer, "--widths"):
            assert read_workload(layer if layer.startswith("Depthwise") else with_width(layer, width)).image[0] > 0
