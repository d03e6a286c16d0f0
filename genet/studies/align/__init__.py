"""Widths at the edges of the device's latency staircase, for a network that exists already (tail-effect paper, section 4)."""
