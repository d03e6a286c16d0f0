"""Timing on the device at hand: the stopwatch, the runtimes, and meters that time workloads in turn."""
