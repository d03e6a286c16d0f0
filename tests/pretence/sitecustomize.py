"""Enter the pretend GPU as a Python process starts, if PRETEND_GPU is set: for the processes that a test starts with this folder

on PYTHONPATH, and for those that they start.
"""

import os

if os.environ.get("PRETEND_GPU"):
    from genet.latency import clock, meter
    from genet.studies.survey import roof
    from tests.pretend_gpu import pretend_gpu

    roof.LARGE, roof.PASS_BYTES = (64,), 2**16  # what keeps a GPU busy would keep a processor busy for minutes
    clock.UNSETTLED_S, meter.ATTEMPTS = 0.02, 1  # a busy processor never settles, and no time means anything here
    pretence = pretend_gpu()  # kept, or it would end at once
    pretence.__enter__()
