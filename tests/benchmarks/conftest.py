"""The benchmarks are scripts beside the package; those of the GPU are importable as `gpu`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
