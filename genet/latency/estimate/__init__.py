"""Estimates for GPUs that this machine lacks: tiles, waves and a roofline. Never called measurements."""
