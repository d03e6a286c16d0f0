#!/usr/bin/env bash
# All GPU evidence of this project, on a machine with an NVIDIA GPU and no network:
#
#     benchmarks/gpu.sh                 every part, one after another
#     benchmarks/gpu.sh table networks  some parts: checks table staircases prediction networks trials serving align survey
#
# Each part ends within 8 minutes and exits with 75 where more is left; the same command then goes on with it. Results and
# evidence go to benchmarks/results/DEVICE/. Nothing needs to be installed: it runs from the checkout.
# For a dry run without a GPU: benchmarks/gpu.sh --small (the processor, tiny space, three networks).
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

small=()
if [[ "${1:-}" == --small ]]; then small=(--small); shift; fi
parts=("$@")
if [[ ${#parts[@]} -eq 0 ]]; then parts=(checks table staircases prediction networks trials serving align survey); fi

failed=0
for part in "${parts[@]}"; do
    echo "== $part"
    # An interrupt is what a user would send: what was measured is kept, and the next call goes on.
    timeout --signal=INT --kill-after=30 "${GPU_PART_SECONDS:-470}" python3 benchmarks/gpu.py "$part" "${small[@]}"
    code=$?
    case $code in
        0) ;;
        75 | 124 | 130 | 137) echo "$part: more is left; give the same command again"; exit 75 ;;
        *) echo "$part: failed with $code"; failed=$code ;;
    esac
done
exit $failed
