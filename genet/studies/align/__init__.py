"""Widths at the edges of the device's latency staircase, for an existing network (tail-effect paper, section 4)."""

TOLERANCE = 0.05  # relative change of the parameters that an alignment may make unless told otherwise
