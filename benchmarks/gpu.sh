#!/usr/bin/env bash
# GPU evidence within the few minutes that a borrowed machine with an NVIDIA GPU and no network gives.
#
#     benchmarks/gpu.sh evidence [FOLDER]     latencies, staircases, predictions, the papers' figures; at most 330 s
#     benchmarks/gpu.sh job [FOLDER]          a whole search on CIFAR-10, with its race; at most 420 s
#
# Each part has a limit of its own (gpu/plan.py has them in their order). Whatever happens, one archive of at most 16 MiB,
# genet-gpu-COMMAND.tar.gz, ends in the folder that $OUT names (default: the current one); it is renewed while a part runs, so that
# it is there even where everything is killed. The same command goes on from it where it lies in FOLDER, or else where it is to be
# written: what is done stays, what failed or was cut off is tried again. It ends with 0 when all is done, with 75 where something is left.
# `python benchmarks/gpu_summary.py ARCHIVE` makes benchmarks/results/DEVICE/ of it.
#
# FOLDER holds what the machine lacks, each if there is need of it:
#   *.whl                         installed into a temporary folder by pip without a network, and nowhere else; a wheel that is
#                                 not for this Python is named and skipped
#   cifar10.tar.xz                for job: train/CLASS/* and test/CLASS/*; --small does without, by noise
#   genet-gpu-COMMAND.tar.gz      to go on from
#   COMMIT                        the commit's id, if the checkout's .git does not tell it; GENET_COMMIT comes first
# An archive to go on from can be made of what is committed, such as
#     tar -czf FOLDER/genet-gpu-evidence.tar.gz -C benchmarks/results nvidia-h200/evidence
# The wheels for Python 3.12 with torch, timm, scipy and pytest but without pydantic and torch-pruning, fetched elsewhere by
#     pip download --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -d FOLDER \
#         'pydantic>=2.9' 'typing-extensions>=4.16'
#     pip download --only-binary=:all: --python-version 3.12 --no-deps -d FOLDER 'torch-pruning>=1.6'
# are pydantic with the pydantic-core that it asks for (which is why --no-deps must not go with it), annotated-types,
# typing-inspection, typing-extensions and torch-pruning.
#
# --small runs every part at the smallest settings, on the processor; --device cuda takes the GPU for it. Both commands together
# then take a few minutes on two cores; tests/benchmarks/test_gpu_small.py runs them so, also on a pretend GPU.
set -uo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m gpu "$@"
