"""Estimates for GPUs that are not here: tiles, waves and a roofline. Never called measurements."""
