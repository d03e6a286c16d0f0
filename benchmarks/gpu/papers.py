"""Figures of the three papers that the summary puts beside ours, under our names."""

from __future__ import annotations

from papers import genet, tail_effect, utilization

# Table 7: V100, PyTorch, FP16, batch 64, milliseconds per image. GENets at 192, 192 and 256 pixels.
GENET_TABLE_7 = {genet.OURS[row.model]: row.ms_per_image[64] for row in genet.latencies(7) if row.model in genet.OURS}
# Table 3: how many times as long as the GENet of about the same accuracy, V100.
GENET_TABLE_3 = [(genet.OURS[ours], genet.OURS[other], times[0]) for ours, other, times in genet.TABLE_3 if other in genet.OURS]
# Tail effect, table 2: Titan-V, batch 128; change of latency by aligning what was pruned.
TAIL_TABLE_2 = {each.widths: " and ".join(f"{change:.1f}%" for _, change in each.after) for each in tail_effect.TABLE_2}
# The same, table 3: Titan-V, batch 1; milliseconds before and after growing width and resolution, and FLOP/s.
TAIL_TABLE_3 = {f"timm:{each.name}": "{} -> {} ms, {} -> {} GFLOP/s".format(*each.titan_v) for each in tail_effect.TABLE_3}
# Utilization, its survey: V100, TensorRT, FP16, the best batch; images/s and TFLOP/s.
UTILIZATION_SURVEY = {row.model: (row.images_per_sec, row.tflops_per_sec) for row in utilization.survey()}
