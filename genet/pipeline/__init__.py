"""The job on a run folder: one module per step, in the order of `run.py`."""
