"""Latency of networks on a device: the latency table, the measurements behind it, and the predictions from it."""
