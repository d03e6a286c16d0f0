"""The staircase of latency over width: which widths to measure, where its edges are, which widths to keep."""
