"""Runners of trials and trainings: this process, one process per GPU, or a Ray cluster."""
