#!/usr/bin/env bash
# What runs on a machine with a GPU, in the root of a checkout; --cpu: a rehearsal on tiny shapes, anywhere.
# It takes SECONDS_IN_ALL (470) at most; each step has a limit of its own, and one that fails does not stop the rest.
# Every figure: $OUT/results.jsonl; what was printed: $OUT/log.txt; the table, which is printed last: $OUT/table.txt.
#   tests/gpu/run.sh [--cpu] [STEP…]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OUT=${OUT:-$PWD/gpu-out} SLEEPD_GPU_WORK=${SLEEPD_GPU_WORK:-/tmp/sleepd-gpu}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
seconds=${SECONDS_IN_ALL:-470}
if [[ ${1:-} == --cpu ]]; then
    export SLEEPD_GPU_ON_CPU=1
    shift
fi
mkdir -p "$OUT"
: >"$OUT/table.txt"
: >"$OUT/results.jsonl"
# A plan that hangs is cut too; the table then holds what was found until there.
status=0
timeout -k 5 $((seconds + 20)) "${PYTHON:-python3}" -m tests.gpu "$seconds" "$@" >"$OUT/log.txt" 2>&1 || status=$?
cut -c1-600 "$OUT/table.txt"
echo "exit $status"
exit "$status"
