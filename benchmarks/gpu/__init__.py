"""What benchmarks/gpu.sh runs: parts of evidence in their order, each within its limit, and the archive that brings them home.

`plan`, `attempts`, `archive`, `supplies`, `session` and `process` need Python alone, so that an archive comes home where nothing
can be imported; `worker` and the parts need genet.
"""
