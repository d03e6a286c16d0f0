"""Timing on the device at hand: the clock, the runtimes, and meters that time workloads in turn."""
